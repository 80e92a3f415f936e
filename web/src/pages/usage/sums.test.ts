import assert from "node:assert/strict";
import { test } from "node:test";
import { sumsByDay } from "./sums.ts";

const usage = (day: string, percent: number | null) => ({
  day,
  model: "m",
  calls: 1,
  input_tokens: 1,
  cache_write_5m_tokens: 2,
  cache_write_1h_tokens: 4,
  cache_read_tokens: 8,
  output_tokens: 16,
  cost_microdollars: null,
  judge_calls: 0,
  judge_cost_microdollars: null,
  percent,
});

test("sums the models of a day, and has a day without calls", () => {
  const days = [usage("2026-03-28", 10), usage("2026-03-28", 5), usage("2026-03-30", null)];
  assert.deepEqual(sumsByDay(days, "2026-03-28", "2026-03-30"), [
    { day: "2026-03-28", tokens: 62, percent: 15 },
    { day: "2026-03-29", tokens: 0, percent: undefined },
    { day: "2026-03-30", tokens: 31, percent: undefined },
  ]);
});
