/** What has happened to a build, as the points of a line: phases, checks, sleeps, snapshots, and how it is now. Pure. */

import type { Schemas } from "../../api/client.ts";

type Progress = Schemas["ProgressOut"];
type Phase = Schemas["PhaseOut"];
type Gate = Schemas["GateOut"];
type Snapshot = Schemas["SnapshotOut"];

interface Point {
  readonly key: string;
  /** Milliseconds since 1970. */
  readonly at: number;
}

export interface PhasePoint extends Point {
  readonly kind: "phase";
  readonly phase: Phase;
  /** Seconds since the phase before it, sleep left out. */
  readonly seconds: number;
  /** The kept snapshot of its commit. */
  readonly snapshot: number | null;
}

export interface GatePoint extends Point {
  readonly kind: "gate";
  readonly gate: Gate;
}

export interface SleepPoint extends Point {
  readonly kind: "sleep";
  /** Seconds; null while it sleeps. */
  readonly seconds: number | null;
}

export interface SnapshotPoint extends Point {
  readonly kind: "snapshot";
  readonly snapshot: Snapshot;
}

/** The phase that the agent works on, or how the build has ended. */
export interface NowPoint extends Point {
  readonly kind: "now";
  /** Whether it has ended; then `at` is when. */
  readonly ended: boolean;
}

export type TimelinePoint = PhasePoint | GatePoint | SleepPoint | SnapshotPoint | NowPoint;

/** What of the build's row the line needs. */
export interface Span {
  readonly created_at: string;
  readonly started_at: string | null;
  readonly closed_at: string | null;
  readonly status: string;
}

const time = (at: string): number => Date.parse(at);

/** Reasons of snapshots that are taken for their commit: at the end of a phase, and for the checks. */
const FOR_COMMIT: ReadonlySet<string> = new Set(["phase", "gate"]);

/** The points in order of time, `now` last, or the sleep that lasts. A snapshot that a phase has taken belongs to the phase. */
export function timelineOf(
  build: Span,
  progress: Progress,
  snapshots: readonly Snapshot[],
  now: number,
): TimelinePoint[] {
  const points: TimelinePoint[] = [];
  const ofPhases = new Set<number>();
  let began = time(build.started_at ?? build.created_at);
  for (const phase of progress.phases) {
    const at = time(phase.ended_at);
    const same = snapshots.filter((each) => isSame(each.commit, phase.commit));
    const snapshot = same[0]?.number ?? null;
    for (const { number, reason } of same) {
      if (number === snapshot || FOR_COMMIT.has(reason)) ofPhases.add(number);
    }
    const seconds = awake(began, at, progress, now);
    points.push({ kind: "phase", key: `phase ${phase.number} ${phase.ended_at}`, at, phase, seconds, snapshot });
    began = at;
  }
  for (const gate of progress.gates) {
    points.push({ kind: "gate", key: `gate ${gate.number}`, at: time(gate.ended_at ?? gate.started_at), gate });
  }
  for (const sleep of progress.sleeps) {
    const at = time(sleep.since);
    const seconds = sleep.until === null ? null : (time(sleep.until) - at) / 1000;
    points.push({ kind: "sleep", key: `sleep ${sleep.since}`, at, seconds });
  }
  for (const snapshot of snapshots) {
    if (ofPhases.has(snapshot.number) || snapshot.stored_at === null) continue;
    points.push({ kind: "snapshot", key: `snapshot ${snapshot.number}`, at: time(snapshot.stored_at), snapshot });
  }
  points.sort((one, other) => one.at - other.at);
  if (build.closed_at !== null) points.push({ kind: "now", key: "now", at: time(build.closed_at), ended: true });
  else if (build.started_at !== null && !isAsleep(progress)) {
    points.push({ kind: "now", key: "now", at: began, ended: false });
  }
  return points;
}

/** A build that sleeps has its sleep as its last point. */
const isAsleep = (progress: Progress): boolean => progress.sleeps.at(-1)?.until === null;

/** Seconds between two times in which the build did not sleep. */
export function awake(from: number, to: number, progress: Progress, now: number): number {
  const slept = progress.sleeps.reduce((sum, sleep) => {
    const until = sleep.until === null ? now : time(sleep.until);
    return sum + Math.max(0, Math.min(to, until) - Math.max(from, time(sleep.since)));
  }, 0);
  return Math.max(0, to - from - slept) / 1000;
}

function isSame(one: string | null, other: string | null): boolean {
  return !!one && !!other && (one.startsWith(other) || other.startsWith(one));
}

/** Phases up to which the line shows all of its points. */
export const UNFOLDED_PHASES = 12;
/** Of a longer line, the newest phases that it shows. */
export const NEWEST_PHASES = 8;

export interface FoldedLine {
  /** The points up to the first phase, or all if the line is short. */
  readonly first: readonly TimelinePoint[];
  /** The points between, which a button shows. */
  readonly folded: readonly TimelinePoint[];
  /** The phases among them. */
  readonly foldedPhases: number;
  /** The points from the eighth newest phase on. */
  readonly newest: readonly TimelinePoint[];
}

/** Fold a line of many phases: its page stays small, however long the build is. */
export function foldLine(points: readonly TimelinePoint[]): FoldedLine {
  const phases = points.flatMap((point, index) => (point.kind === "phase" ? [index] : []));
  if (phases.length <= UNFOLDED_PHASES) return { first: points, folded: [], foldedPhases: 0, newest: [] };
  const from = (phases[0] ?? 0) + 1;
  const to = phases.at(-NEWEST_PHASES) ?? from;
  return {
    first: points.slice(0, from),
    folded: points.slice(from, to),
    foldedPhases: phases.length - 1 - NEWEST_PHASES,
    newest: points.slice(to),
  };
}
