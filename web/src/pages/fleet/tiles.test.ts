import assert from "node:assert/strict";
import { test } from "node:test";
import type { Schemas } from "../../api/client.ts";
import { apiQuery } from "./filter.ts";
import { counts, filterOf, TILES } from "./tiles.ts";

type Group = Schemas["BuildGroupOut"];

function group(status: string, count: number, waiting_for: string | null = null): Group {
  return { status, waiting_for, dependency: null, version: null, count, oldest_since: "" } as unknown as Group;
}

test("counts each build on one tile, and those that are done on none", () => {
  const found = counts([
    group("code", 3),
    group("checks", 2),
    group("sleeping", 900),
    group("needs_input", 4, "founder"),
    group("needs_input", 1),
    group("needs_input", 5, "operator"),
    group("needs_input", 6, "kill_switch"),
    group("waiting", 7),
    group("queued", 8),
    group("failed", 9),
    group("ready", 100),
    group("dreaming", 1),
  ]);
  assert.deepEqual(found, { working: 5, sleeping: 900, founder: 5, operator: 11, waiting: 7, queued: 8, failed: 9 });
});

test("what failed today is what ended on this UTC day", () => {
  const query = apiQuery(filterOf("failed"), new Date("2026-12-01T23:30:00-05:00"));
  assert.deepEqual(query, { sort: "-since", status: ["failed"], closed_since: "2026-12-02", open: false });
});

test("every tile shows builds of its own", () => {
  const asked = TILES.map((tile) => JSON.stringify(apiQuery(filterOf(tile))));
  assert.equal(new Set(asked).size, TILES.length);
});
