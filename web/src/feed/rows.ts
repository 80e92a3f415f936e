/**
 * The rows in which a feed is shown: a flat list, so that what is folded is not rendered. Pure and incremental: rows
 * before the first entry that has changed are kept as the same objects.
 */

import type { EventType } from "./events.ts";
import { type Entry, type FeedState, isClosed } from "./state.ts";
import { onOneLine } from "./text.ts";

export type Mode = "story" | "everything";

/** What a filter lets through; `mode` is not used while one is set. */
export type Chip = "said" | "commands" | "files" | "failed" | "checks" | "you";

export const CHIPS: readonly Chip[] = ["said", "commands", "files", "failed", "checks", "you"];

export interface View {
  readonly mode: Mode;
  /** Every word has to be in a row's text; empty for all. */
  readonly text: string;
  readonly chips: ReadonlySet<Chip>;
  /** Keys of the rows that are open. */
  readonly open: ReadonlySet<string>;
}

export const PLAIN_VIEW: View = { mode: "story", text: "", chips: new Set(), open: new Set() };

interface RowBase {
  /** The same for as long as the row is shown, also if rows before it are loaded later. */
  readonly key: string;
  /** The first event of the row. */
  readonly id: number;
  readonly at: number;
  readonly turn: number | null;
  readonly open: boolean;
}

/** Sentences of an attempt, as a paragraph. */
export interface SaidRow extends RowBase {
  readonly kind: "said";
  readonly text: string;
  readonly withdrawn: boolean;
}

/** The tool calls of a turn, folded. The calls follow as rows of their own if it is open. */
export interface WorkRow extends RowBase {
  readonly kind: "work";
  readonly calls: readonly Entry[];
}

export interface CallRow extends RowBase {
  readonly kind: "call";
  readonly callId: string;
  readonly entry: Entry;
  /** Shown inside of a work row that is open. */
  readonly nested: boolean;
}

/** A run of the evidence gate with its steps. */
export interface GateRow extends RowBase {
  readonly kind: "gate";
  readonly entries: readonly Entry[];
}

/** Any other event. */
export interface EventRow extends RowBase {
  readonly kind: "event";
  readonly entry: Entry;
}

export type Row = SaidRow | WorkRow | CallRow | GateRow | EventRow;

type Place = "said" | "call" | "gate" | "event" | "everything only";

/** Where an event of each type is shown. A type that is added to the API does not compile without a place here. */
export const PLACES: Record<EventType | "unknown", Place> = {
  answer: "event",
  budget: "event",
  compacted: "event",
  gate_bounced: "gate",
  gate_passed: "gate",
  gate_started: "gate",
  gate_step: "gate",
  guard: "event",
  hook_failed: "event",
  host_refused: "event",
  message: "event",
  message_withdrawn: "everything only",
  messages_read: "everything only",
  model: "event",
  narration: "said",
  phase_completed: "event",
  plan: "event",
  preview: "event",
  product_judged: "gate",
  pushed: "event",
  question: "event",
  ready: "event",
  restore_asked: "event",
  restore_done: "event",
  restore_failed: "event",
  resumed: "event",
  snapshot_failed: "event",
  snapshot_stored: "event",
  status: "event",
  tool_done: "call",
  tool_started: "call",
  turn_answered: "everything only",
  turn_failed: "event",
  turn_started: "everything only",
  turn_withdrawn: "everything only",
  unknown: "event",
};

/** States of a build and of its preview that the events around them say better; only in everything. */
const SAID_ELSEWHERE: ReadonlySet<string> = new Set(["code", "checks", "ready"]);

function isSaidElsewhere({ event }: Entry): boolean {
  if (event.type === "status") return SAID_ELSEWHERE.has(event.data.status);
  return event.type === "preview" && event.data.state === "opening";
}

/** Rows with what they were made from, to make the next ones from. */
export interface Rows {
  readonly rows: readonly Row[];
  readonly entries: readonly Entry[];
  readonly view: View;
  /** For each row: the index of its first entry, and whether rows can be made again from there on. */
  readonly starts: readonly { readonly index: number; readonly clean: boolean }[];
}

export const NO_ROWS: Rows = { rows: [], entries: [], view: PLAIN_VIEW, starts: [] };

/** Whether a filter is set. */
export function isFiltered(view: View): boolean {
  return view.chips.size > 0 || view.text.trim() !== "";
}

/** The rows of a state. `before`: the rows of an earlier state; those that are still right are kept. */
export function makeRows(state: Pick<FeedState, "entries">, view: View, before: Rows = NO_ROWS): Rows {
  const { entries } = state;
  if (before.entries === entries && before.view === view) return before;
  const kept = before.view === view ? rowsToKeep(before, entries) : 0;
  const maker = new Maker(view, before.rows.slice(0, kept), before.starts.slice(0, kept));
  const from = kept === 0 ? 0 : (before.starts[kept]?.index ?? 0);
  for (let index = from; index < entries.length; index++) maker.add(entries[index] as Entry, index);
  maker.close();
  return { rows: maker.rows, starts: maker.starts, entries, view };
}

/** How many of the rows stay as they are: those before a clean start that is not after the first changed entry. */
function rowsToKeep(before: Rows, entries: readonly Entry[]): number {
  const length = Math.min(before.entries.length, entries.length);
  let changed = 0;
  while (changed < length && before.entries[changed] === entries[changed]) changed++;
  if (changed === 0) return 0;
  for (let row = before.rows.length - 1; row >= 0; row--) {
    const start = before.starts[row];
    if (start?.clean && start.index < changed) return row;
  }
  return 0;
}

/** What a row is about to be, until its last entry is known. */
type Unfinished =
  | { kind: "said"; claim: string | null; turn: number | null; entries: Entry[]; row: number }
  | { kind: "work"; turn: number | null; entries: Entry[]; row: number }
  | { kind: "gate"; entries: Entry[]; row: number };

class Maker {
  readonly rows: Row[];
  readonly starts: { index: number; clean: boolean }[];
  readonly #view: View;
  readonly #words: readonly string[];
  readonly #filtered: boolean;
  #said: Extract<Unfinished, { kind: "said" }> | null = null;
  #work: Extract<Unfinished, { kind: "work" }> | null = null;
  #gate: Extract<Unfinished, { kind: "gate" }> | null = null;

  constructor(view: View, rows: readonly Row[], starts: Rows["starts"]) {
    this.#view = view;
    this.rows = [...rows];
    this.starts = [...starts];
    this.#words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
    this.#filtered = isFiltered(view);
  }

  add(entry: Entry, index: number): void {
    const { event } = entry;
    const place = PLACES[event.type];
    if (event.turn !== null) this.#endOfTurn(event.turn);
    if (this.#filtered) {
      if (this.#fits(entry)) this.#single(entry, index);
      return;
    }
    if (this.#view.mode === "everything") {
      if (place === "gate") this.#addToGate(entry, index);
      else this.#single(entry, index);
      return;
    }
    if (place === "everything only" || entry.withdrawn || isSaidElsewhere(entry)) return;
    if (place === "said") this.#say(entry, index);
    else if (place === "call") this.#call(entry, index);
    else if (place === "gate") this.#addToGate(entry, index);
    else {
      this.#endSaid();
      this.#single(entry, index);
    }
  }

  /** Finish every row. */
  close(): void {
    this.#endSaid();
    this.#endWork();
    this.#endGate();
  }

  #push(row: Row, index: number): number {
    // A row may be made again from here on if nothing before it is still growing.
    const clean = this.#said === null && this.#work === null && this.#gate === null;
    this.starts.push({ index, clean });
    return this.rows.push(row) - 1;
  }

  #base(entry: Entry, key: string): RowBase {
    const { id, at, turn } = entry.event;
    return { key, id, at, turn, open: this.#view.open.has(key) };
  }

  #single(entry: Entry, index: number): void {
    const { event } = entry;
    if (event.type === "narration") {
      const base = this.#base(entry, `e${event.id}`);
      this.#push({ ...base, kind: "said", text: event.data.text, withdrawn: entry.withdrawn === true }, index);
    } else if (event.type === "tool_started" || event.type === "tool_done") {
      this.#push(this.#callRow(entry, false), index);
    } else {
      this.#push({ ...this.#base(entry, `e${event.id}`), kind: "event", entry }, index);
    }
  }

  #callRow(entry: Entry, nested: boolean): CallRow {
    const { event } = entry;
    const callId = event.type === "tool_started" || event.type === "tool_done" ? event.data.tool_use_id : "";
    return { ...this.#base(entry, `c${callId}`), kind: "call", callId, entry, nested };
  }

  #say(entry: Entry, index: number): void {
    if (entry.event.type !== "narration") return;
    const { claim } = entry.event.data;
    if (this.#said !== null && (this.#said.claim !== claim || this.#said.turn !== entry.event.turn)) this.#endSaid();
    if (this.#said === null) {
      const base = this.#base(entry, `e${entry.event.id}`);
      const row = this.#push({ ...base, kind: "said", text: "", withdrawn: false }, index);
      this.#said = { kind: "said", claim, turn: entry.event.turn, entries: [], row };
    }
    this.#said.entries.push(entry);
  }

  #call(entry: Entry, index: number): void {
    const { turn } = entry.event;
    this.#endSaid();
    if (this.#work !== null && this.#work.turn !== turn) this.#endWork();
    if (this.#work === null) {
      const row = this.#push({ ...this.#base(entry, keyOfWork(entry)), kind: "work", calls: [] }, index);
      this.#work = { kind: "work", turn, entries: [], row };
    }
    this.#work.entries.push(entry);
    if (this.rows[this.#work.row]?.open) this.#push(this.#callRow(entry, true), index);
  }

  #addToGate(entry: Entry, index: number): void {
    this.#endSaid();
    if (this.#gate !== null && entry.event.type === "gate_started") this.#endGate();
    if (this.#gate === null) {
      const row = this.#push({ ...this.#base(entry, `e${entry.event.id}`), kind: "gate", entries: [] }, index);
      this.#gate = { kind: "gate", entries: [], row };
    }
    this.#gate.entries.push(entry);
    if (entry.event.type === "gate_bounced" || entry.event.type === "gate_passed") this.#endGate();
  }

  /** The gate runs between turns, so an event of a turn ends it too. */
  #endOfTurn(turn: number): void {
    this.#endGate();
    if (this.#said !== null && this.#said.turn !== turn) this.#endSaid();
    if (this.#work !== null && this.#work.turn !== turn) this.#endWork();
  }

  #endSaid(): void {
    const said = this.#said;
    if (said === null) return;
    this.#said = null;
    const text = said.entries.map(({ event }) => (event.type === "narration" ? event.data.text : "")).join(" ");
    const row = this.rows[said.row] as SaidRow;
    this.rows[said.row] = { ...row, text };
  }

  #endWork(): void {
    const work = this.#work;
    if (work === null) return;
    this.#work = null;
    const row = this.rows[work.row] as WorkRow;
    this.rows[work.row] = { ...row, calls: work.entries };
  }

  #endGate(): void {
    const gate = this.#gate;
    if (gate === null) return;
    this.#gate = null;
    const row = this.rows[gate.row] as GateRow;
    this.rows[gate.row] = { ...row, entries: gate.entries };
  }

  #fits(entry: Entry): boolean {
    const { chips } = this.#view;
    if (chips.size > 0 && !chipsOf(entry).some((chip) => chips.has(chip))) return false;
    if (this.#words.length === 0) return true;
    const text = textOf(entry).toLowerCase();
    return this.#words.every((word) => text.includes(word));
  }
}

function keyOfWork(entry: Entry): string {
  return entry.event.turn === null ? `w-${entry.event.id}` : `w${entry.event.turn}`;
}

const COMMANDS: ReadonlySet<string> = new Set(["bash"]);
const FILES: ReadonlySet<string> = new Set(["read_file", "write_file", "edit_file", "glob", "grep"]);
const YOURS: ReadonlySet<string> = new Set([
  ...["message", "message_withdrawn", "messages_read", "question", "answer"],
  ...["restore_asked", "restore_done", "restore_failed"],
]);
const FAILURES: ReadonlySet<string> = new Set([
  ...["turn_failed", "snapshot_failed", "restore_failed", "hook_failed", "host_refused", "gate_bounced"],
]);

/** The chips of a filter that let an entry through. */
export function chipsOf(entry: Entry): Chip[] {
  const { event } = entry;
  const chips: Chip[] = [];
  if (event.type === "narration") chips.push("said");
  if (event.type === "tool_started" || event.type === "tool_done") {
    if (COMMANDS.has(event.data.name)) chips.push("commands");
    if (FILES.has(event.data.name)) chips.push("files");
  }
  if (callFailed(entry) || FAILURES.has(event.type)) chips.push("failed");
  if (PLACES[event.type] === "gate" || event.type === "plan") chips.push("checks");
  if (YOURS.has(event.type)) chips.push("you");
  return chips;
}

/** Whether the entry is a call that has failed. */
export function callFailed(entry: Entry): boolean {
  const result = resultOf(entry);
  return result?.data.is_error === true;
}

/** The event with a call's result; null if it has none, or if the entry is no call. */
export function resultOf(entry: Entry) {
  return entry.done ?? (entry.event.type === "tool_done" ? entry.event : null);
}

/** The state of a call. A build that has ended has lost the results that are missing. */
export function callState(entry: Entry, state: Pick<FeedState, "status">): "running" | "done" | "failed" | "lost" {
  const result = resultOf(entry);
  if (result !== null) return result.data.is_error ? "failed" : "done";
  return isClosed(state) ? "lost" : "running";
}

/** The types of the events that a row shows. */
export function typesOf(row: Row): string[] {
  if (row.kind === "said") return ["narration"];
  const entries = row.kind === "work" ? row.calls : row.kind === "gate" ? row.entries : [row.entry];
  return entries.flatMap((entry) => (entry.done ? [entry.event.type, entry.done.type] : [entry.event.type]));
}

/** What an entry says, for a filter. */
export function textOf(entry: Entry): string {
  return onOneLine(stringsOf(entry.event.data).join(" "));
}

function stringsOf(value: unknown): string[] {
  if (typeof value === "string") return [value];
  if (typeof value === "object" && value !== null) return Object.values(value).flatMap(stringsOf);
  return [];
}

/** What the calls of a work row have done. */
export interface WorkSummary {
  readonly calls: number;
  readonly failed: number;
  readonly running: number;
  readonly commands: number;
  /** Files that were written or edited, by the calls' summaries. */
  readonly files: number;
  /** The sum of the calls' seconds. */
  readonly seconds: number;
}

const WRITES: ReadonlySet<string> = new Set(["write_file", "edit_file"]);

export function summaryOf(calls: readonly Entry[]): WorkSummary {
  const files = new Set<string>();
  let [failed, running, commands, seconds] = [0, 0, 0, 0];
  for (const entry of calls) {
    const { event } = entry;
    if (event.type !== "tool_started" && event.type !== "tool_done") continue;
    const result = resultOf(entry);
    if (result === null) running += 1;
    else if (result.data.is_error) failed += 1;
    seconds += result?.data.seconds ?? 0;
    if (COMMANDS.has(event.data.name)) commands += 1;
    if (WRITES.has(event.data.name)) files.add(event.data.summary);
  }
  return { calls: calls.length, failed, running, commands, files: files.size, seconds };
}
