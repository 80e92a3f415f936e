import { printable } from "../../parts/printable.ts";
import { Status } from "../../parts/Status.tsx";
import { fleet as words } from "../../words/fleet.ts";
import style from "./Fleet.module.css";

interface Props {
  status: string;
  waitingFor: string | null | undefined;
  dependency?: string | null | undefined;
  reason?: string | null | undefined;
}

/** How a build is, in words for operators, with what it waits for and why. */
export function FleetStatus({ status, waitingFor, dependency, reason }: Props) {
  const needs = waitingFor ? words.statuses.needs[waitingFor] : undefined;
  const word = status === "needs_input" ? (needs ?? words.statuses.needsInput) : words.statuses.word[status];
  const details = [dependency && words.waitsFor(words.dependency[dependency] ?? dependency), reason].filter(Boolean);
  return (
    <>
      <Status status={status} word={word} />
      {details.length > 0 && (
        <small className={style.clamped} title={printable(details.join(" "))}>
          {printable(details.join(" "))}
        </small>
      )}
    </>
  );
}
