import { type ReactNode, useMemo, useState } from "react";
import type { Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { duration } from "../../parts/clock.ts";
import { Icon, type IconName } from "../../parts/Icon.tsx";
import { printable } from "../../parts/printable.ts";
import { isEnded, statusWord } from "../../parts/Status.tsx";
import { Time, useNow } from "../../parts/Time.tsx";
import { timeline as text } from "../../words/build.ts";
import type { Build } from "./data.ts";
import type { Target } from "./restore.ts";
import style from "./Timeline.module.css";
import { foldLine, type TimelinePoint, timelineOf } from "./timeline.ts";

export interface TimelineProps {
  build: Build;
  progress: Schemas["ProgressOut"] | undefined;
  snapshots: readonly Schemas["SnapshotOut"][];
  /** How much the phases have changed, as far as that is known. */
  changed: readonly Schemas["ChangedPhaseOut"][];
  /** The event to show of a point, if the feed has one. */
  eventOf: (point: TimelinePoint) => number | undefined;
  onShow: (event: number) => void;
  onChanges: () => void;
  /** Go back to a point, or begin a new build from it; undefined if the reader may do neither. */
  onBack: ((target: Target) => void) | undefined;
}

const NOW_SECONDS = 5;

/** The line of what has happened, the newest last. */
export function Timeline(props: TimelineProps) {
  const points = usePoints(props);
  const only = points.length === 0 || (points.length === 1 && points[0]?.kind === "now" && !points[0].ended);
  return (
    <ol className={style.line} aria-label={text.title}>
      <Folded
        points={points}
        entry={(point) => <Entry key={point.key} point={point} {...props} />}
        rest={(words, open, toggle) => (
          <li className={`${style.point} ${style.rest}`}>
            <span />
            <Button kind="quiet" small aria-expanded={open} onClick={toggle}>
              {words}
            </Button>
          </li>
        )}
      />
      {only && <li className={style.empty}>{text.empty}</li>}
    </ol>
  );
}

/** The same as chips on one line, for narrow windows: phases, checks, sleeps, and how it is now. */
export function TimelineChips(props: TimelineProps) {
  const points = usePoints(props).filter((point) => point.kind !== "snapshot");
  return (
    <ol className={style.chips} aria-label={text.title}>
      <Folded
        points={points}
        entry={(point) => <Chip key={point.key} point={point} {...props} />}
        rest={(words, open, toggle) => (
          <li>
            <button type="button" className={style.chip} aria-expanded={open} onClick={toggle}>
              {words}
            </button>
          </li>
        )}
      />
      {points.length === 0 && <li className={style.empty}>{text.empty}</li>}
    </ol>
  );
}

function Chip({ point, build, eventOf, onShow }: { point: TimelinePoint } & TimelineProps) {
  const event = eventOf(point);
  const { icon, title, hue } = lookOf(point, build);
  const content = (
    <>
      <Icon name={icon} size={14} />
      <span className={style.chipText}>{title}</span>
    </>
  );
  return (
    <li className={style[hue]}>
      {event === undefined ? (
        <span className={style.chip}>{content}</span>
      ) : (
        <button type="button" className={style.chip} onClick={() => onShow(event)}>
          {content}
        </button>
      )}
    </li>
  );
}

interface FoldedProps {
  points: readonly TimelinePoint[];
  entry: (point: TimelinePoint) => ReactNode;
  /** The button that shows and hides the phases between; it stays where it is, and so does the focus. */
  rest: (words: string, open: boolean, toggle: () => void) => ReactNode;
}

/** The points of a line, those in the middle of a long one behind a button. */
function Folded({ points, entry, rest }: FoldedProps) {
  const [open, setOpen] = useState(false);
  const { first, folded, foldedPhases, newest } = useMemo(() => foldLine(points), [points]);
  return (
    <>
      {first.map(entry)}
      {foldedPhases > 0 && rest(open ? text.fewer : text.more(foldedPhases), open, () => setOpen(!open))}
      {open && folded.map(entry)}
      {newest.map(entry)}
    </>
  );
}

function usePoints({ build, progress, snapshots }: TimelineProps): TimelinePoint[] {
  const now = useNow(NOW_SECONDS);
  return useMemo(
    () => (progress === undefined ? [] : timelineOf(build, progress, snapshots, now)),
    [build, progress, snapshots, now],
  );
}

interface Look {
  icon: IconName;
  title: string;
  hue: "good" | "warn" | "bad" | "rest" | "info" | "plain";
}

const WORKS: ReadonlySet<string> = new Set(["queued", "starting", "scaffold", "code", "checks"]);
const AT_WORK: Look = { icon: "work", title: text.inWork, hue: "info" };
const WAITING: Look = { icon: "clock", title: "", hue: "rest" };

function lookOf(point: TimelinePoint, build: Build): Look {
  switch (point.kind) {
    case "phase":
      return { icon: "commit", title: printable(point.phase.title) || text.phase(point.phase.number), hue: "good" };
    case "gate":
      return {
        icon: "gate",
        title: text.gate(point.gate.number),
        hue: point.gate.passed === null ? "info" : point.gate.passed ? "good" : "warn",
      };
    case "sleep":
      return {
        icon: "moon",
        title: point.seconds === null ? text.asleepNow : text.asleep(duration(point.seconds)),
        hue: "rest",
      };
    case "snapshot":
      return { icon: "snapshot", title: text.snapshot(point.snapshot.number), hue: "plain" };
    case "now":
      if (!point.ended)
        return WORKS.has(build.status) ? AT_WORK : { ...WAITING, title: statusWord(build.status, build.waiting_for) };
      return {
        icon: build.status === "ready" ? "check" : build.status === "failed" ? "error" : "stop",
        title: text.ended[build.status] ?? build.status,
        hue: build.status === "ready" ? "good" : "bad",
      };
  }
}

function Entry({
  point,
  build,
  changed,
  eventOf,
  onShow,
  onChanges,
  onBack,
}: { point: TimelinePoint } & TimelineProps) {
  const { icon, title, hue } = lookOf(point, build);
  const event = eventOf(point);
  const ended = isEnded(build.status);
  const target = targetOf(point, ended);
  return (
    <li className={`${style.point} ${style[hue]} ${style[point.kind]}`}>
      <span className={style.mark}>
        <Icon name={icon} size={point.kind === "snapshot" ? 12 : 14} />
      </span>
      <div className={style.body}>
        <p className={style.title}>
          {event === undefined ? (
            title
          ) : (
            <button type="button" className={style.show} title={text.show} onClick={() => onShow(event)}>
              {title}
            </button>
          )}
        </p>
        <Detail point={point} changed={changed} />
        <div className={style.actions}>
          {point.kind === "phase" && (
            <Button kind="quiet" small onClick={onChanges} aria-label={`${text.changesOf}: ${title}`}>
              {text.changesOf}
            </Button>
          )}
          {onBack !== undefined && target !== null && (
            <Button
              kind="quiet"
              small
              onClick={() => onBack(target)}
              aria-label={`${ended ? text.newFrom : text.back}: ${title}`}
            >
              {ended ? text.newFrom : text.back}
            </Button>
          )}
          {onBack !== undefined && target === null && point.kind === "phase" && (
            <Button
              kind="quiet"
              small
              aria-disabled
              title={text.notKept}
              aria-label={`${text.newFrom}: ${title}. ${text.notKept}`}
            >
              {text.newFrom}
            </Button>
          )}
        </div>
      </div>
    </li>
  );
}

/** Where "Go back to here" leads. An ended build has only what its snapshots have; an open one each of its commits. */
function targetOf(point: TimelinePoint, ended: boolean): Target | null {
  if (point.kind === "snapshot") return { kind: "snapshot", number: point.snapshot.number };
  if (point.kind !== "phase") return null;
  const { number, title, commit } = point.phase;
  if (ended)
    return point.snapshot === null ? null : { kind: "snapshot", number: point.snapshot, phase: { number, title } };
  return commit === null ? null : { kind: "commit", commit, phase: { number, title } };
}

function Detail({ point, changed }: { point: TimelinePoint } & Pick<TimelineProps, "changed">): ReactNode {
  const now = useNow(NOW_SECONDS);
  switch (point.kind) {
    case "phase": {
      const change = changed.find((each) => each.number === point.phase.number && each.commit === point.phase.commit);
      return (
        <p className={style.detail}>
          {text.phase(point.phase.number)} · {text.took(duration(point.seconds))}
          {point.phase.commit !== null && (
            <>
              {" · "}
              <code>{printable(point.phase.commit.slice(0, 7))}</code>
            </>
          )}
          {change !== undefined && change.files !== null && (
            <span className={style.changed}>
              {text.changes(change.files, change.additions ?? 0, change.deletions ?? 0)}
            </span>
          )}
        </p>
      );
    }
    case "gate": {
      const { passed, tests_run, findings } = point.gate;
      return (
        <p className={style.detail}>
          {passed === null ? text.gateRuns : passed ? text.gatePassed(tests_run) : text.gateNot(findings.length)}
        </p>
      );
    }
    case "snapshot":
      return (
        <p className={style.detail}>
          <Time at={new Date(point.at).toISOString()} />
        </p>
      );
    case "sleep":
      return (
        <p className={style.detail}>
          {text.since} <Time at={new Date(point.at).toISOString()} />
        </p>
      );
    case "now":
      return (
        <p className={style.detail}>
          {point.ended ? (
            <Time at={new Date(point.at).toISOString()} />
          ) : (
            text.inWorkFor(duration(Math.max(0, now - point.at) / 1000))
          )}
        </p>
      );
  }
}
