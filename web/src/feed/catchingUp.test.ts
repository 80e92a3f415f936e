import assert from "node:assert/strict";
import { test } from "node:test";
import { BEHIND, catchingUp } from "./catchingUp.ts";
import type { Live } from "./stream.ts";

test("says how far a connected feed is behind, and nothing of one that is up to date or lost", () => {
  const live: Live = { kind: "live" };
  assert.deepEqual(catchingUp(live, 1200, 10_000), { last: 1200, newest: 10_000 });
  assert.deepEqual(catchingUp(live, 100, 100 + BEHIND), { last: 100, newest: 100 + BEHIND });
  assert.equal(catchingUp(live, 100, 99 + BEHIND), null, "a few events are on their way all the time");
  assert.equal(catchingUp(live, 120, 100), null, "the build's row was read before the last events");
  assert.equal(catchingUp(live, 0, 10_000), null, "nothing is loaded yet");
  for (const lost of [{ kind: "offline", retryAt: 0 }, { kind: "ended" }, { kind: "opening" }] as const)
    assert.equal(catchingUp(lost, 1200, 10_000), null);
});
