import assert from "node:assert/strict";
import { test } from "node:test";
import { waitFor } from "./announcement.ts";
import { changeOf, type Watched } from "./changes.ts";

const BUILD: Watched = { id: "b", status: "code", waiting_for: null, wakes_at: null, turn: 7, question: null };

test("tells of a build that needs its founder once per question", () => {
  const asked: Watched = { ...BUILD, status: "needs_input", waiting_for: "founder", question: { id: "q1" } };
  assert.deepEqual(changeOf(asked), { kind: "needs_input", key: "needs_input q1" });
  assert.notEqual(changeOf({ ...asked, question: { id: "q2" } })?.key, changeOf(asked)?.key);
  assert.equal(changeOf({ ...asked, waiting_for: "operator" })?.kind, "needs_other");
});

test("tells of a sleep once, although its status is repeated", () => {
  const asleep: Watched = { ...BUILD, status: "sleeping", wakes_at: "2026-11-25T00:00:00Z" };
  assert.equal(changeOf(asleep)?.key, changeOf({ ...asleep, turn: 8 })?.key);
  assert.equal(changeOf(asleep)?.key, changeOf({ ...asleep, wakes_at: "2026-11-25T00:00:00+00:00" })?.key);
  assert.notEqual(changeOf(asleep)?.key, changeOf({ ...asleep, wakes_at: "2026-11-26T00:00:00Z" })?.key);
});

test("tells of the end, not of work", () => {
  assert.equal(changeOf({ ...BUILD, status: "ready" })?.kind, "ready");
  assert.equal(changeOf({ ...BUILD, status: "failed" })?.kind, "failed");
  for (const status of ["queued", "starting", "code", "checks", "waiting", "cancelled"] as const) {
    assert.equal(changeOf({ ...BUILD, status }), null);
  }
});

test("waits five seconds between two announcements", () => {
  assert.equal(waitFor(0, 60_000), 0);
  assert.equal(waitFor(60_000, 61_000), 4_000);
});
