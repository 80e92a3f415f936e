import { lazy, memo, type ReactNode, Suspense } from "react";
import {
  type CallRow,
  callState,
  type EventRow,
  type GateRow,
  type Row,
  summaryOf,
  type WorkRow,
} from "../../feed/rows.ts";
import { showEvent } from "../../feed/showEvent.ts";
import { isClosed } from "../../feed/state.ts";
import { ExternalLink } from "../../parts/ExternalLink.tsx";
import { Icon, type IconName } from "../../parts/Icon.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { feed as feedWords } from "../../words/feed.ts";
import style from "./FeedRow.module.css";

const ToolCall = lazy(() => import("./ToolCall.tsx"));

const text = feedWords;

export interface FeedRowProps {
  build: string;
  row: Row;
  /** The build's status: what has no result when it has ended never gets one. */
  status: string;
  beganAt: number | null;
  toggle: (key: string) => void;
  onFile?: (path: string) => void;
}

/** A row of the feed. It is drawn again only if its content changes. */
export const FeedRow = memo(
  function FeedRow({ build, row, status, beganAt, toggle, onFile }: FeedRowProps) {
    const line = (icon: IconName, hue: Hue, body: ReactNode, more: Partial<LineProps> = {}) => (
      <Line row={row} icon={icon} hue={hue} beganAt={beganAt} {...more}>
        {body}
      </Line>
    );
    switch (row.kind) {
      case "said":
        return line(
          "message",
          "plain",
          <>
            <p className={`${style.said} ${row.withdrawn ? style.withdrawn : ""}`}>{printable(row.text)}</p>
            {row.withdrawn && <p className={style.quiet}>{text.withdrawn}</p>}
          </>,
          { label: text.kinds.said },
        );
      case "work":
        return line("work", "quiet", <Work row={row} toggle={toggle} isEnded={isClosed({ status })} />, {
          label: text.kinds.work,
        });
      case "call":
        return <Call {...{ build, row, status, beganAt, toggle, onFile }} />;
      case "gate":
        return <Gate {...{ row, status, beganAt }} />;
      case "event":
        return <Event row={row} beganAt={beganAt} />;
    }
  },
  (one, other) =>
    one.row === other.row &&
    one.build === other.build &&
    one.beganAt === other.beganAt &&
    one.onFile === other.onFile &&
    isClosed(one) === isClosed(other),
);

type Hue = "plain" | "quiet" | "good" | "warn" | "bad" | "info" | "rest" | "phase" | "you";

interface LineProps {
  row: Pick<Row, "id" | "at" | "turn">;
  icon: IconName;
  hue: Hue;
  beganAt: number | null;
  /** What the icon stands for, for those who do not see it. */
  label?: string;
  right?: ReactNode;
  nested?: boolean;
  children?: ReactNode;
}

/** Clock, icon, what happened, and a figure at the right. The clock is the row's address. */
function Line({ row, icon, hue, beganAt, label, right, nested = false, children }: LineProps) {
  return (
    <div className={`${style.line} ${style[hue]} ${nested ? style.nested : ""}`}>
      <a
        className={style.clock}
        href={`#e${row.id}`}
        title={new Date(row.at).toLocaleString()}
        onClick={(event) => {
          event.preventDefault();
          showEvent(row.id);
        }}
      >
        <time dateTime={new Date(row.at).toISOString()}>{elapsed(row.at - (beganAt ?? row.at))}</time>
      </a>
      <span className={style.icon}>
        <Icon name={icon} />
        {label !== undefined && <span className="visually-hidden">{label}:</span>}
      </span>
      <div className={style.body}>{children}</div>
      {right !== undefined && <span className={style.right}>{right}</span>}
    </div>
  );
}

/** Such as "4:05" or "1:04:05", from milliseconds. */
function elapsed(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (value: number) => String(value).padStart(2, "0");
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes}:${two(seconds % 60)}`
    : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(seconds % 60)}`;
}

/** A button that shows or hides what a row has more. */
function Fold({ open, onToggle, children }: { open: boolean; onToggle: () => void; children: ReactNode }) {
  return (
    <button type="button" className={style.fold} aria-expanded={open} onClick={onToggle} tabIndex={-1}>
      {children}
      <span className={`${style.chevron} ${open ? style.isOpen : ""}`}>
        <Icon name="chevron" size={14} />
      </span>
    </button>
  );
}

function Work({ row, toggle, isEnded }: { row: WorkRow; toggle: (key: string) => void; isEnded: boolean }) {
  const sums = summaryOf(row.calls);
  const isRunning = sums.running > 0 && !isEnded;
  return (
    <Fold open={row.open} onToggle={() => toggle(row.key)}>
      <span>
        {isRunning ? text.working : text.worked}
        {!isRunning && ` ${text.seconds(sums.seconds)}`}: {text.work(sums)}
      </span>
      {sums.failed > 0 && (
        <span className={style.failure}>
          <Icon name="error" size={14} /> {text.failed(sums.failed)}
        </span>
      )}
    </Fold>
  );
}

const TOOL_ICONS: Record<string, IconName> = {
  bash: "terminal",
  read_file: "file",
  write_file: "file",
  edit_file: "code",
  glob: "search",
  grep: "search",
  take_screenshot: "camera",
  look: "camera",
  ask_founder: "question",
};

const STATE_ICONS = { running: "clock", done: "check", failed: "error", lost: "question" } as const;

interface CallProps extends Omit<FeedRowProps, "row"> {
  row: CallRow;
}

function Call({ build, row, status, beganAt, toggle, onFile }: CallProps) {
  const { event, done } = row.entry;
  if (event.type !== "tool_started" && event.type !== "tool_done") return null;
  const { name, summary } = event.data;
  const result = done ?? (event.type === "tool_done" ? event : null);
  const state = callState(row.entry, { status });
  const subject = summary.startsWith(`${name}: `) ? summary.slice(name.length + 2) : summary === name ? "" : summary;
  return (
    <>
      <Line
        row={row}
        icon={TOOL_ICONS[name] ?? "code"}
        hue={state === "failed" ? "bad" : state === "lost" ? "warn" : "quiet"}
        beganAt={beganAt}
        label={text.kinds.call}
        nested={row.nested}
        right={
          <>
            {result !== null && text.seconds(result.data.seconds)}
            <span className={style.state} title={text.callState[state]}>
              <Icon name={STATE_ICONS[state]} size={14} />
              <span className={state === "done" ? "visually-hidden" : undefined}>{text.callState[state]}</span>
            </span>
          </>
        }
      >
        <Fold open={row.open} onToggle={() => toggle(row.key)}>
          <span className={style.call}>
            <span className={style.tool}>{printable(name)}</span> <code>{printable(subject)}</code>
          </span>
        </Fold>
      </Line>
      {row.open && (
        <div className={style.detail}>
          <Suspense fallback={<Skeleton />}>
            <ToolCall build={build} id={row.callId} state={state} onFile={onFile} />
          </Suspense>
        </div>
      )}
    </>
  );
}

function Gate({ row, status, beganAt }: { row: GateRow; status: string; beganAt: number | null }) {
  let number = 0;
  let outcome: ReactNode = null;
  let hue: Hue = "info";
  let icon: IconName = "gate";
  const steps: string[] = [];
  const findings: string[] = [];
  const notes: ReactNode[] = [];
  for (const { event } of row.entries) {
    if (event.type === "gate_started") number = event.data.number;
    else if (event.type === "gate_step") steps.push(event.data.text);
    else if (event.type === "gate_bounced") {
      number = event.data.number;
      findings.push(...event.data.findings);
      outcome = text.gateBounced(number, findings.length);
      [hue, icon] = ["warn", "warning"];
    } else if (event.type === "gate_passed") {
      number = event.data.number;
      outcome = text.gatePassed(number, event.data.tests_run);
      [hue, icon] = ["good", "check"];
    } else if (event.type === "product_judged") {
      const { model, reason, returned } = event.data;
      const judged =
        reason !== null ? text.notJudged(reason) : text.judged(model, event.data.findings.length, returned);
      notes.push(<Listing key={event.id} title={judged} items={returned ? [] : event.data.findings} />);
    }
  }
  const isRunning = outcome === null && !isClosed({ status });
  return (
    <Line row={row} icon={icon} hue={hue} beganAt={beganAt} label={text.kinds.gate}>
      <p className={style.title}>{outcome ?? (isRunning ? text.gateRunning(number) : text.gateStopped(number))}</p>
      {steps.length > 0 && (
        <ol className={style.steps} aria-label={text.steps}>
          {steps.map((step, index) => (
            <li key={index}>{printable(step)}</li>
          ))}
        </ol>
      )}
      {notes}
      {findings.length > 0 && <Listing title={text.findings} items={findings} />}
    </Line>
  );
}

/** A list with its title; long items are folded to their first line. */
function Listing({ title, items }: { title: string; items: readonly string[] }) {
  return (
    <div className={style.listing}>
      <p>{printable(title)}</p>
      {items.length > 0 && (
        <ul>
          {items.map((item, index) => {
            const [first = "", ...rest] = printable(item).split("\n");
            return (
              <li key={index}>
                {rest.length === 0 ? (
                  first
                ) : (
                  <details>
                    <summary>{first}</summary>
                    <pre>{rest.join("\n")}</pre>
                  </details>
                )}
              </li>
            );
          })}
        </ul>
      )}
    </div>
  );
}

/** A text in a fold of the browser's own. */
function More({ title, children }: { title: string; children: string }) {
  return (
    <details className={style.more}>
      <summary>{title}</summary>
      <pre>{printable(children)}</pre>
    </details>
  );
}

const STATUS_LOOK: Record<string, [IconName, Hue]> = {
  sleeping: ["moon", "rest"],
  waiting: ["clock", "rest"],
  needs_input: ["question", "warn"],
  ready: ["check", "good"],
  failed: ["error", "bad"],
  cancelled: ["stop", "bad"],
};

const targetOf = (data: { snapshot: number | null; commit: string | null }) =>
  data.commit === null ? text.snapshotTarget(data.snapshot ?? 0) : text.commitTarget(data.commit);

function Event({ row, beganAt }: { row: EventRow; beganAt: number | null }) {
  const { entry } = row;
  const { event } = entry;
  const line = (icon: IconName, hue: Hue, title: string, more?: ReactNode, label: string = text.kinds.note) => (
    <Line row={row} icon={icon} hue={hue} beganAt={beganAt} label={label}>
      <p>{printable(title)}</p>
      {more}
    </Line>
  );
  const reason = (value: string | null) => (value ? <p className={style.quiet}>{printable(value)}</p> : null);
  const warning = (title: string, more?: ReactNode) => line("warning", "warn", title, more, text.kinds.warning);

  switch (event.type) {
    case "status": {
      const { status } = event.data;
      const [icon, hue] = STATUS_LOOK[status] ?? ["info", "quiet"];
      return line(
        icon,
        hue,
        text.status[status] ?? text.statusOther(status),
        reason(event.data.reason),
        text.kinds.status,
      );
    }
    case "model":
      return line("info", "quiet", text.modelChosen(event.data.label || event.data.model));
    case "message":
      return (
        <Line row={row} icon="person" hue="you" beganAt={beganAt} label={text.kinds.you}>
          <p className={style.yours}>{printable(event.data.text)}</p>
          <p className={style.quiet}>
            {entry.takenBack
              ? text.takenBack
              : entry.readAt === undefined
                ? text.waits
                : entry.readAt === null
                  ? text.read
                  : text.readAt(entry.readAt)}
          </p>
        </Line>
      );
    case "message_withdrawn":
      return line("person", "you", text.tookBack(event.data.number), null, text.kinds.you);
    case "messages_read":
      return line("message", "quiet", text.messagesRead(event.data.numbers.length));
    case "question":
      return (
        <Line row={row} icon="question" hue="warn" beganAt={beganAt} label={text.kinds.question}>
          <p className={style.title}>{text.asks}</p>
          <p className={style.said}>{printable(event.data.problem)}</p>
          {event.data.tried.length > 0 && <Listing title={text.tried} items={event.data.tried} />}
          {event.data.options.length > 0 && <Listing title={text.options} items={event.data.options} />}
          {entry.answer !== undefined ? (
            <p className={style.quiet}>
              {text.youAnswered}: {printable(entry.answer.data.text)}
            </p>
          ) : (
            event.data.default !== null && <p className={style.quiet}>{printable(text.goesOn(event.data.default))}</p>
          )}
        </Line>
      );
    case "answer":
      return (
        <Line row={row} icon="person" hue="you" beganAt={beganAt} label={text.youAnswered}>
          <p className={style.yours}>{printable(event.data.text)}</p>
        </Line>
      );
    case "turn_started":
      return line("play", "quiet", `${text.turn(event.turn ?? 0)}: ${text.turnStarted(event.data.attempt)}`);
    case "turn_answered": {
      const tokens = Object.entries(event.data.tokens)
        .filter(([, count]) => count > 0)
        .map(([kind, count]) => text.tokens(count, text.tokenKinds[kind] ?? kind));
      return line("info", "quiet", text.turnAnswered(tokens.join(", "), event.data.tool_calls));
    }
    case "turn_failed":
      return warning(text.turnFailed, reason(event.data.error));
    case "turn_withdrawn":
      return warning(text.turnWithdrawn(event.turn));
    case "compacted":
      return line(
        "info",
        "quiet",
        text.compacted,
        event.data.summary !== "" && <More title={text.summary}>{event.data.summary}</More>,
      );
    case "phase_completed":
      return (
        <Line
          row={row}
          icon="commit"
          hue="phase"
          beganAt={beganAt}
          label={text.kinds.phase}
          right={event.data.commit !== null && <code>{printable(event.data.commit.slice(0, 7))}</code>}
        >
          <p className={style.title}>
            {text.phase(event.data.phase)}: {printable(event.data.title)}
          </p>
        </Line>
      );
    case "snapshot_stored":
      return line("snapshot", "quiet", text.snapshot(event.data.number, event.data.reason, event.data.files));
    case "snapshot_failed":
      return warning(text.snapshotFailed(event.data.number), reason(event.data.error));
    case "guard":
      return warning(event.data.text);
    case "budget":
      return line("clock", event.data.alert ? "bad" : "warn", event.data.text, null, text.kinds.warning);
    case "plan": {
      const { done, open, stories } = event.data;
      const more = stories.length > 0 && <Listing title={text.stillOpen} items={stories} />;
      return line("check", "quiet", text.plan(done, done + open), more);
    }
    case "host_refused":
      return warning(text.hostRefused(event.data.host), reason(event.data.remedy));
    case "restore_asked":
      return line("back", "you", text.restoreAsked(targetOf(event.data)), null, text.kinds.you);
    case "restore_done":
      return line("back", "good", text.restored(targetOf(event.data), event.data.kept_as));
    case "restore_failed":
      return warning(text.restoreFailed, reason(event.data.error));
    case "resumed": {
      const { changes, continuing_from } = event.data;
      const more = changes.length > 0 && <Listing title={text.changes} items={changes} />;
      return line("play", "info", text.resumed(event.data.reason, continuing_from), more);
    }
    case "preview": {
      const { state, url } = event.data;
      const more = state === "open" && url !== null ? <ExternalLink href={url} /> : reason(event.data.reason);
      return line(
        state === "failed" ? "warning" : "external",
        state === "failed" ? "warn" : "quiet",
        text.preview(state),
        more,
      );
    }
    case "pushed":
      return line("check", "good", text.pushed(event.data.commit, event.data.branch, event.data.repository));
    case "hook_failed":
      return warning(text.hookFailed, reason(event.data.error));
    case "ready":
      return line("check", "good", text.version(event.data.build_version));
    case "unknown":
      return line(
        "info",
        "quiet",
        text.unknown(event.name),
        <More title={text.open}>{JSON.stringify(event.data, null, 2)}</More>,
      );
    default:
      // A single event of a gate, as a filter shows it.
      return <Gate row={{ ...row, kind: "gate", entries: [entry] }} status="ready" beganAt={beganAt} />;
  }
}
