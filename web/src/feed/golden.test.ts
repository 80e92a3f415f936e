/** The stored feeds add up to the same state as in the command line (`tests/golden/states.py`). */

import assert from "node:assert/strict";
import { test } from "node:test";
import { SHAPES } from "./events.ts";
import { applyEvents, EMPTY, type FeedState, shownIds } from "./state.ts";
import { readStored, STORED_FEEDS, storedEvents } from "./storedFeeds.ts";

/** A state with the names of the command line. */
function asStored(state: FeedState) {
  return {
    last_id: state.lastId,
    status: state.status,
    waiting_for: state.waitingFor,
    dependency: state.dependency,
    reason: state.reason,
    wakes_at: state.wakesAt,
    wake_command: state.wakeCommand,
    model_label: state.modelLabel,
    turn: state.turn,
    calls_done: state.callsDone,
    calls_failed: state.callsFailed,
    budget_percent: state.budgetPercent,
    budget_level: state.budgetLevel,
    phases: state.phases,
    preview_url: state.previewUrl,
    began_at: state.beganAt,
    ended_at: state.endedAt,
    shown: shownIds(state),
  };
}

for (const name of STORED_FEEDS) {
  const stored = JSON.parse(readStored(`${name}.state.json`));
  const events = storedEvents(name);

  test(`${name} adds up to its state`, () => {
    assert.deepEqual(asStored(applyEvents(EMPTY, events)), stored);
  });

  test(`${name} adds up to its state in batches of any size`, () => {
    for (const size of [1, 2, 7, 50]) {
      let state = EMPTY;
      for (let from = 0; from < events.length; from += size) {
        state = applyEvents(state, events.slice(from, from + size));
      }
      assert.deepEqual(state, applyEvents(EMPTY, events));
    }
  });
}

test("the shapes of events are the API's", () => {
  assert.deepEqual(SHAPES, JSON.parse(readStored("shapes.json")));
});
