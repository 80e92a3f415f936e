import type { Schemas } from "../api/client.ts";
import { words } from "../words/index.ts";
import { Icon, type IconName } from "./Icon.tsx";
import type { NoticeKind } from "./Notice.tsx";
import style from "./Status.module.css";

export type BuildStatus = Schemas["Status"];
export type WaitingFor = Schemas["WaitingFor"];

interface Look {
  icon: IconName;
  hue: NoticeKind;
}

const LOOKS: Record<BuildStatus, Look> = {
  queued: { icon: "queue", hue: "info" },
  starting: { icon: "play", hue: "info" },
  scaffold: { icon: "play", hue: "info" },
  code: { icon: "work", hue: "info" },
  checks: { icon: "gate", hue: "info" },
  sleeping: { icon: "moon", hue: "rest" },
  waiting: { icon: "clock", hue: "rest" },
  needs_input: { icon: "question", hue: "warn" },
  ready: { icon: "check", hue: "good" },
  failed: { icon: "error", hue: "bad" },
  cancelled: { icon: "stop", hue: "bad" },
};

/** Whether nothing more happens in a build with this status. */
export function isEnded(status: string): boolean {
  return status === "ready" || status === "failed" || status === "cancelled";
}

/** The status's word. One that this page does not know yet (a newer server) is shown as it is. */
export function statusWord(status: string, waitingFor?: string | null): string {
  if (status === "needs_input" && waitingFor) {
    return words.status.needs[waitingFor as WaitingFor] ?? words.status.word.needs_input;
  }
  return words.status.word[status as BuildStatus] ?? status;
}

interface Props {
  status: string;
  waitingFor?: string | null;
  /** The word for readers who are not the build's founder. */
  word?: string | undefined;
}

/** The status as a chip: icon and word. */
export function Status({ status, waitingFor, word }: Props) {
  const look = LOOKS[status as BuildStatus] ?? { icon: "info", hue: "info" };
  return (
    <span className={`${style.status} ${style[look.hue]}`} data-status={status}>
      <Icon name={look.icon} size={14} />
      {word ?? statusWord(status, waitingFor)}
    </span>
  );
}
