import assert from "node:assert/strict";
import { test } from "node:test";
import { apiQuery, nextSort, readFilter, showsTheSame, sortOf, withList, writeFilter } from "./filter.ts";

test("an address without a query shows the open builds, the newest first", () => {
  const filter = readFilter("");
  assert.deepEqual(apiQuery(filter), { sort: "-created_at", open: true });
  assert.equal(writeFilter(filter), "");
});

test("what is in the address is asked of the API, and comes back into the address", () => {
  const search = "status=sleeping&status=waiting&plan=partner&user=a%26b&older_than_seconds=3600&shown=all&sort=-spent";
  const filter = readFilter(`${search}&tab=x`);
  assert.deepEqual(apiQuery(filter), {
    sort: "-spent",
    status: ["sleeping", "waiting"],
    plan: ["partner"],
    user: ["a&b"],
    older_than_seconds: 3600,
  });
  assert.deepEqual(readFilter(writeFilter(filter)), filter);
  assert.equal(apiQuery(readFilter("shown=ended")).open, false);
});

test("nonsense in the address is left out, and values of a newer server are asked for", () => {
  const filter = readFilter("older_than_seconds=soon&shown=some&status=&status=dreaming&status=dreaming");
  assert.deepEqual(apiQuery(filter), { sort: "-created_at", open: true, status: ["dreaming"] });
});

test("a list is changed and removed", () => {
  const asleep = withList(readFilter("sort=turn"), "status", ["sleeping"]);
  assert.equal(writeFilter(asleep), "status=sleeping&sort=turn");
  assert.equal(writeFilter(withList(asleep, "status", [])), "sort=turn");
  assert.ok(showsTheSame(asleep, readFilter("status=sleeping")));
  assert.ok(!showsTheSame(asleep, readFilter("status=sleeping&shown=all")));
});

test("a column is sorted from the highest, then from the lowest", () => {
  assert.equal(nextSort("-created_at", "spent"), "-spent");
  assert.equal(nextSort("-spent", "spent"), "spent");
  assert.equal(nextSort("spent", "spent"), "-spent");
  assert.deepEqual(
    ["-spent", "spent", "turn"].map((sort) => sortOf(sort, "spent")),
    ["descending", "ascending", "none"],
  );
});
