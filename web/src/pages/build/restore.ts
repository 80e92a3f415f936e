/** Where a workspace is put back to, and how far the last wish for it has come. Pure. */

import type { Schemas } from "../../api/client.ts";
import { restore as text } from "../../words/build.ts";

interface Phase {
  readonly number: number;
  readonly title: string;
}

export type Target =
  | { readonly kind: "snapshot"; readonly number: number; readonly phase?: Phase }
  | { readonly kind: "commit"; readonly commit: string; readonly phase?: Phase };

/** The target in words, as text of the founder's and the agent's: not yet printable. */
export function nameOf(target: Target): string {
  if (target.phase !== undefined) return text.toPhase(target.phase.number, target.phase.title);
  return target.kind === "snapshot" ? text.toSnapshot(target.number) : text.toCommit(target.commit.slice(0, 7));
}

/** The last wish to put the workspace back. */
export interface RestoreState {
  readonly number: number;
  readonly state: "asked" | "done" | "failed";
  readonly target: string;
  /** The snapshot of what was there before. */
  readonly keptAs: number | null;
  readonly error: string | null;
}

/** What of an event is read here. */
export interface Sent {
  readonly id: number;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

const number = (value: unknown): number | null => (typeof value === "number" ? value : null);
const string = (value: unknown): string | null => (typeof value === "string" ? value : null);

/** How the last restore among the events is; null if there was none. `events`: newest first. */
export function lastRestore(events: readonly Sent[], phases: readonly Schemas["PhaseOut"][]): RestoreState | null {
  const last = events.find((event) => event.type.startsWith("restore_"));
  const count = last === undefined ? null : number(last.data.number);
  if (last === undefined || count === null) return null;
  const asked = events.find((event) => event.type === "restore_asked" && event.data.number === count) ?? last;
  const states = { restore_asked: "asked", restore_done: "done", restore_failed: "failed" } as const;
  return {
    number: count,
    state: states[last.type as keyof typeof states] ?? "asked",
    target: targetOf(asked, phases),
    keptAs: number(last.data.kept_as),
    error: string(last.data.error),
  };
}

function targetOf(event: Sent, phases: readonly Schemas["PhaseOut"][]): string {
  const commit = string(event.data.commit);
  if (commit === null) return text.toSnapshot(number(event.data.snapshot) ?? 0);
  const phase = phases.find(
    (each) => each.commit?.startsWith(commit) || (!!each.commit && commit.startsWith(each.commit)),
  );
  return nameOf({ kind: "commit", commit, phase });
}
