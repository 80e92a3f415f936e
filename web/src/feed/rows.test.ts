import assert from "node:assert/strict";
import { test } from "node:test";
import { type FeedEvent, readEvent } from "./events.ts";
import { CHIPS, callState, makeRows, NO_ROWS, PLAIN_VIEW, type Row, summaryOf, type View } from "./rows.ts";
import { applyEvents, EMPTY } from "./state.ts";
import { storedEvents } from "./storedFeeds.ts";

let last = 0;
function made(type: string, turn: number | null, data: Record<string, unknown>): FeedEvent {
  last += 1;
  return readEvent({ id: last, type, turn, created_at: "2026-11-24T12:00:00Z", data });
}

function rowsOf(events: FeedEvent[], view: Partial<View> = {}): readonly Row[] {
  return makeRows(applyEvents(EMPTY, events), { ...PLAIN_VIEW, ...view }).rows;
}

const say = (turn: number, text: string, claim = "a") => made("narration", turn, { text, claim });
const start = (turn: number, id: string, name = "bash") =>
  made("tool_started", turn, { tool_use_id: id, name, summary: `${name}: ${id}` });
const finish = (turn: number, id: string, name = "bash", is_error = false) =>
  made("tool_done", turn, { tool_use_id: id, name, summary: `${name}: ${id}`, is_error, seconds: 1.5 });

test("a turn is a paragraph and one row of work", () => {
  const events = [
    ...[made("turn_started", 1, {}), say(1, "First."), say(1, "Second.")],
    ...[start(1, "t1"), start(1, "t2", "edit_file"), finish(1, "t1"), finish(1, "t2", "edit_file", true)],
    ...[made("turn_answered", 1, {}), say(2, "Next.", "b"), start(2, "t3")],
  ];
  const rows = rowsOf(events);
  assert.deepEqual(
    rows.map((row) => row.kind),
    ["said", "work", "said", "work"],
  );
  assert.equal(rows[0]?.kind === "said" && rows[0].text, "First. Second.");
  const work = rows[1];
  assert(work?.kind === "work");
  assert.deepEqual(summaryOf(work.calls), { calls: 2, failed: 1, running: 0, commands: 1, files: 1, seconds: 3 });
  assert.deepEqual(
    rowsOf(events, { open: new Set([work.key]) }).map((row) => row.key),
    [rows[0]?.key, "w1", "ct1", "ct2", rows[2]?.key, "w2"],
  );
  assert.deepEqual(
    rowsOf(events, { mode: "everything" }).map((row) => row.kind),
    ["event", "said", "said", "call", "call", "event", "said", "call"],
  );
});

test("withdrawn words are gone from the story and marked in everything", () => {
  const events = [say(1, "Lost.", "x"), made("turn_withdrawn", 1, { claim: "x" }), say(1, "Again.", "y")];
  assert.deepEqual(
    rowsOf(events).map((row) => row.kind === "said" && row.text),
    ["Again."],
  );
  const all = rowsOf(events, { mode: "everything" });
  assert.deepEqual(
    all.map((row) => row.kind === "said" && row.withdrawn),
    [true, false, false],
  );
});

test("a gate is one row until it has its result", () => {
  const events = [
    ...[made("gate_started", null, { number: 1 }), made("gate_step", null, { text: "Install." })],
    ...[made("gate_bounced", null, { number: 1, findings: ["No."] }), made("gate_started", null, { number: 2 })],
    ...[made("guard", null, { text: "?" }), made("gate_passed", null, { number: 2 })],
  ];
  assert.deepEqual(
    rowsOf(events).map((row) => (row.kind === "gate" ? row.entries.length : row.kind)),
    [3, 2, "event"],
  );
});

test("a story leaves out what other events say better", () => {
  const events = [made("status", null, { status: "checks" }), made("preview", null, { state: "opening" })];
  assert.deepEqual(rowsOf(events), []);
  assert.equal(rowsOf(events, { mode: "everything" }).length, 2);
});

test("a filter lets through what it names, call by call", () => {
  const events = [
    ...[say(1, "I fix the Table."), start(1, "t1"), start(1, "t2", "edit_file"), finish(1, "t1", "bash", true)],
    ...[made("message", null, { number: 1, text: "A round table." }), made("gate_step", null, { text: "Install." })],
  ];
  const kinds = (view: Partial<View>) => rowsOf(events, view).map((row) => row.kind);
  assert.deepEqual(kinds({ text: "TABLE" }), ["said", "event"]);
  assert.deepEqual(kinds({ text: "table round" }), ["event"]);
  assert.deepEqual(kinds({ chips: new Set(["failed"]) }), ["call"]);
  assert.deepEqual(kinds({ chips: new Set(["commands", "files"]) }), ["call", "call"]);
  assert.deepEqual(kinds({ chips: new Set(["said", "you"]), text: "table" }), ["said", "event"]);
  assert.deepEqual(kinds({ chips: new Set(["checks"]) }), ["event"]);
});

test("a call without a result is lost once the build has ended", () => {
  const state = applyEvents(EMPTY, [start(1, "t1")]);
  const [entry] = state.entries;
  assert(entry);
  assert.equal(callState(entry, state), "running");
  assert.equal(callState(entry, { status: "failed" }), "lost");
});

const VIEWS: Partial<View>[] = [
  ...[{}, { mode: "everything" as const }, { text: "the" }, { chips: new Set([...CHIPS]) }],
  { open: new Set(["w1", "w3", "w7"]) },
];

for (const name of ["rehearsal", "edges"]) {
  for (const [number, changed] of VIEWS.entries()) {
    test(`rows of ${name} made step by step are those made at once, view ${number}`, () => {
      const view = { ...PLAIN_VIEW, ...changed };
      const events = storedEvents(name);
      let state = EMPTY;
      let rows = NO_ROWS;
      for (const event of events) {
        state = applyEvents(state, [event]);
        rows = makeRows(state, view, rows);
        assert.deepEqual(rows.rows, makeRows(state, view).rows);
      }
      assert.equal(new Set(rows.rows.map((row) => row.key)).size, rows.rows.length);
    });
  }
}

test("rows before a change are the same objects", () => {
  const events = storedEvents("rehearsal");
  const state = applyEvents(EMPTY, events.slice(0, -20));
  const before = makeRows(state, PLAIN_VIEW);
  const after = makeRows(applyEvents(state, events), PLAIN_VIEW, before);
  const same = after.rows.filter((row, index) => row === before.rows[index]).length;
  assert(same >= before.rows.length - 3, `${same} of ${before.rows.length}`);
});
