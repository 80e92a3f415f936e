import assert from "node:assert/strict";
import { test } from "node:test";
import { lastRestore, nameOf } from "./restore.ts";

const event = (id: number, type: string, data: Record<string, unknown>) => ({
  id,
  type,
  turn: null,
  created_at: "",
  data,
});
const PHASES = [{ number: 2, title: "Waitlist works", commit: "4f9d2ac1b7e0", turn: 12, ended_at: "" }];

test("follows the last restore from the wish to its end", () => {
  const asked = event(7, "restore_asked", { number: 1, commit: "4f9d2ac1" });
  assert.equal(lastRestore([asked], PHASES)?.state, "asked");
  const done = event(9, "restore_done", { number: 1, commit: "4f9d2ac1", kept_as: 13, stored_as: 14 });
  assert.deepEqual(lastRestore([done, asked], PHASES), {
    number: 1,
    state: "done",
    target: "phase 2, “Waitlist works”",
    keptAs: 13,
    error: null,
  });
  const failed = event(12, "restore_failed", { number: 2, error: "It is gone." });
  const again = event(11, "restore_asked", { number: 2, snapshot: 3 });
  assert.equal(lastRestore([failed, again, done, asked], PHASES)?.error, "It is gone.");
  assert.equal(lastRestore([failed, again, done, asked], PHASES)?.target, "snapshot 3");
});

test("knows no restore if there was none", () => {
  assert.equal(lastRestore([event(1, "resumed", {})], PHASES), null);
});

test("names a target by its phase, else by its number or commit", () => {
  assert.equal(nameOf({ kind: "snapshot", number: 4 }), "snapshot 4");
  assert.equal(nameOf({ kind: "commit", commit: "4f9d2ac1b7e0" }), "commit 4f9d2ac");
});
