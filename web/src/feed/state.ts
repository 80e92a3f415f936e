/**
 * What the events of a build's feed add up to. Pure: the golden feeds in tests/golden/feeds hold it to the same result
 * as `cli/feed_state.py`.
 */

import type { EventData, EventOf, FeedEvent } from "./events.ts";
import { onOneLine } from "./text.ts";

/** An event in the feed, with what later events have said about it. An entry that changes is a new object. */
export interface Entry {
  readonly event: FeedEvent;
  /** Narration of an attempt that no longer counts. */
  readonly withdrawn?: boolean;
  /** The result of a `tool_started` event's call. */
  readonly done?: EventOf<"tool_done">;
  /** The turn that has read a `message` or an `answer`. */
  readonly readAt?: number | null;
  /** The `message` was taken back before a turn has read it. */
  readonly takenBack?: boolean;
  /** The answer to a `question`. */
  readonly answer?: EventOf<"answer">;
}

/** The preview as its last event describes it. */
export interface PreviewState {
  readonly state: string;
  readonly url: string | null;
  readonly expiresAt: string | null;
  readonly reason: string | null;
}

/** A build after the events so far. Times are milliseconds since 1970. */
export interface FeedState {
  readonly lastId: number;
  readonly status: string;
  readonly waitingFor: string | null;
  readonly dependency: string | null;
  readonly reason: string | null;
  /** When it wakes by itself, as an ISO time. */
  readonly wakesAt: string | null;
  readonly wakeCommand: string | null;
  readonly modelLabel: string | null;
  readonly turn: number;
  readonly callsDone: number;
  readonly callsFailed: number;
  readonly budgetPercent: number | null;
  /** green, yellow or red. */
  readonly budgetLevel: string | null;
  /** The titles of the phases that are done. */
  readonly phases: readonly string[];
  /** The events with which phases have ended. */
  readonly phaseEvents: readonly EventOf<"phase_completed">[];
  readonly previewUrl: string | null;
  readonly beganAt: number | null;
  readonly endedAt: number | null;
  /** The agent's last sentence that counts. */
  readonly sentence: string | null;
  readonly preview: PreviewState | null;
  /** The project's version that the build has made. */
  readonly version: number | null;
  /** Questions without an answer, the oldest first. One without `default` holds the build. */
  readonly questions: readonly EventData["question"][];
  /** The last event after which other answers about the build may be out of date; 0 for none. */
  readonly milestoneId: number;
  readonly entries: readonly Entry[];
}

export const EMPTY: FeedState = {
  lastId: 0,
  status: "queued",
  waitingFor: null,
  dependency: null,
  reason: null,
  wakesAt: null,
  wakeCommand: null,
  modelLabel: null,
  turn: 0,
  callsDone: 0,
  callsFailed: 0,
  budgetPercent: null,
  budgetLevel: null,
  phases: [],
  phaseEvents: [],
  previewUrl: null,
  beganAt: null,
  endedAt: null,
  sentence: null,
  preview: null,
  version: null,
  questions: [],
  milestoneId: 0,
  entries: [],
};

/** Events of the work itself: they change nothing but the feed. */
const WORK: ReadonlySet<string> = new Set([
  ...["turn_started", "turn_answered", "turn_failed", "turn_withdrawn", "narration", "tool_started", "tool_done"],
  ...["gate_step", "guard", "host_refused", "compacted"],
]);

const CLOSED: ReadonlySet<string> = new Set(["ready", "failed", "cancelled"]);

/** Whether the build has ended. */
export function isClosed(state: Pick<FeedState, "status">): boolean {
  return CLOSED.has(state.status);
}

type Draft = { -readonly [F in keyof FeedState]: FeedState[F] } & { entries: Entry[] };

/** The state after the events, which are in order. Applying an event again changes nothing. */
export function applyEvents(state: FeedState, events: readonly FeedEvent[]): FeedState {
  const from = events.findIndex((event) => event.id > state.lastId);
  if (from === -1) return state;
  const draft: Draft = { ...state, entries: [...state.entries] };
  for (let index = from; index < events.length; index++) {
    const event = events[index] as FeedEvent;
    if (event.id > draft.lastId) apply(draft, event);
  }
  return draft;
}

function apply(draft: Draft, event: FeedEvent): void {
  draft.lastId = event.id;
  draft.beganAt ??= event.at;
  if (!WORK.has(event.type)) draft.milestoneId = event.id;
  switch (event.type) {
    case "status":
      draft.status = event.data.status;
      draft.waitingFor = event.data.waiting_for;
      draft.dependency = event.data.dependency;
      draft.reason = event.data.reason ? onOneLine(event.data.reason) : null;
      draft.wakesAt = event.data.wakes_at;
      draft.wakeCommand = event.data.wake_command;
      draft.endedAt = isClosed(draft) ? event.at : null;
      // A build that goes on has closed the question that it waited for, with an answer or without.
      if (isClosed(draft)) draft.questions = [];
      else if (draft.status !== "needs_input")
        draft.questions = draft.questions.filter((asked) => asked.default !== null);
      break;
    case "model":
      draft.modelLabel = onOneLine(event.data.label || event.data.model);
      break;
    case "turn_started":
      draft.turn = Math.max(draft.turn, event.turn ?? 0);
      break;
    case "turn_answered":
      draft.turn = Math.max(draft.turn, event.turn ?? 0);
      readBudget(draft, event.data);
      break;
    case "budget":
      readBudget(draft, event.data);
      break;
    case "narration":
      draft.sentence = event.data.text;
      break;
    case "turn_withdrawn":
      withdraw(draft, event.data.claim);
      break;
    case "tool_started":
    case "tool_done":
      call(draft, event);
      return;
    case "phase_completed":
      draft.phaseEvents = [...draft.phaseEvents, event];
      draft.phases = [...draft.phases, onOneLine(event.data.title || `phase ${event.data.phase}`)];
      break;
    case "preview":
      draft.previewUrl = event.data.url || draft.previewUrl;
      draft.preview = {
        state: event.data.state,
        url: event.data.url,
        expiresAt: event.data.expires_at,
        reason: event.data.reason,
      };
      break;
    case "ready":
      draft.previewUrl = event.data.preview_url || draft.previewUrl;
      draft.version = event.data.build_version;
      break;
    case "question":
      draft.questions = [...draft.questions, event.data];
      break;
    case "answer":
      answer(draft, event);
      break;
    case "messages_read":
      for (const number of event.data.numbers) changeMessage(draft, number, { readAt: event.turn });
      break;
    case "message_withdrawn":
      changeMessage(draft, event.data.number, { takenBack: true });
      break;
  }
  draft.entries.push({ event });
}

function readBudget(draft: Draft, data: { budget_percent: number | null; budget_level: string | null }): void {
  if (data.budget_percent === null) return;
  draft.budgetPercent = data.budget_percent;
  draft.budgetLevel = data.budget_level;
}

function withdraw(draft: Draft, claim: string | null): void {
  if (claim === null) return;
  let sentence: string | null = null;
  for (let index = draft.entries.length - 1; index >= 0; index--) {
    const entry = draft.entries[index] as Entry;
    if (entry.event.type !== "narration" || entry.withdrawn) continue;
    if (entry.event.data.claim === claim) draft.entries[index] = { ...entry, withdrawn: true };
    else sentence ??= entry.event.data.text;
  }
  draft.sentence = sentence;
}

/** The index of the last entry for which `fits`, or -1. */
function lastEntry(draft: Draft, fits: (entry: Entry) => boolean): number {
  return draft.entries.findLastIndex(fits);
}

/** The index of a call's entry, or -1. Events of a call belong to one turn, so earlier turns are left out. */
function entryOfCall(draft: Draft, id: string, turn: number | null): number {
  for (let index = draft.entries.length - 1; index >= 0; index--) {
    const { event } = draft.entries[index] as Entry;
    const isCall = event.type === "tool_started" || event.type === "tool_done";
    if (isCall && event.data.tool_use_id === id) return index;
    if (turn !== null && event.turn !== null && event.turn < turn) return -1;
  }
  return -1;
}

function call(draft: Draft, event: EventOf<"tool_started"> | EventOf<"tool_done">): void {
  if (event.type === "tool_done") {
    draft.callsDone += 1;
    draft.callsFailed += Number(event.data.is_error);
  }
  const index = entryOfCall(draft, event.data.tool_use_id, event.turn);
  const before = draft.entries[index];
  if (before === undefined || (event.type === "tool_done" && before.event.type === "tool_done")) {
    if (before !== undefined) draft.entries.splice(index, 1);
    draft.entries.push({ event });
  } else if (event.type === "tool_started") {
    draft.entries[index] = { event };
  } else {
    draft.entries[index] = { ...before, done: event };
  }
}

function answer(draft: Draft, event: EventOf<"answer">): void {
  const id = event.data.question_id;
  if (id === null) return;
  draft.questions = draft.questions.filter((question) => question.question_id !== id);
  const index = lastEntry(draft, (entry) => entry.event.type === "question" && entry.event.data.question_id === id);
  const before = draft.entries[index];
  if (before !== undefined) draft.entries[index] = { ...before, answer: event };
}

function changeMessage(draft: Draft, number: number, change: Pick<Entry, "readAt" | "takenBack">): void {
  const index = lastEntry(draft, ({ event: { type, data } }) => {
    return (type === "message" || type === "answer") && data.number === number;
  });
  const before = draft.entries[index];
  if (before !== undefined) draft.entries[index] = { ...before, ...change };
}

/** The event that a view shows an entry as: the last one of a tool call. */
export function shownEvent(entry: Entry): FeedEvent {
  return entry.done ?? entry.event;
}

/** The ids of the events that the view of the command line has a line for, in order. */
export function shownIds(state: FeedState): number[] {
  const withoutLine: ReadonlySet<string> = new Set(["turn_started", "turn_answered"]);
  return state.entries
    .filter((entry) => !entry.withdrawn && !withoutLine.has(entry.event.type))
    .map((entry) => shownEvent(entry).id)
    .sort((one, other) => one - other);
}
