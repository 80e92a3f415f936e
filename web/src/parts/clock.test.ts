import assert from "node:assert/strict";
import { test } from "node:test";

// The formats take the time zone that is set when they are made.
process.env.TZ = "Pacific/Auckland";
const { duration, utcAndLocal } = await import("./clock.ts");

test("says midnight of UTC in the reader's own time, on both sides of a change of the clock", () => {
  // New Zealand: 13 hours before UTC in summer, 12 in winter.
  assert.match(utcAndLocal(new Date("2026-11-25T00:00:00Z")), /^00:00 UTC \(.*(1:00 PM|13:00) your time\)$/);
  assert.match(utcAndLocal(new Date("2026-06-25T00:00:00Z")), /^00:00 UTC \(.*(12:00 PM|12:00) your time\)$/);
});

test("says a duration in its two largest units", () => {
  assert.deepEqual([7, 75, 900, 11_520, 200_000].map(duration), [
    "7 s",
    "1 min 15 s",
    "15 min",
    "3 h 12 min",
    "2 days",
  ]);
});
