import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { briefFromIdea, characters, jsonBytes } from "./brief.ts";

const golden = new URL("../../../../tests/golden/ideas.json", import.meta.url);
const ideas = JSON.parse(readFileSync(golden, "utf8")) as { idea: string; brief: unknown; bytes: number }[];

for (const { idea, brief, bytes } of ideas) {
  test(`makes the same brief as the command line from ${JSON.stringify(idea.slice(0, 40))}`, () => {
    assert.deepEqual(briefFromIdea(idea), brief);
    assert.equal(jsonBytes(brief), bytes);
  });
}

test("counts characters as the API does, not UTF-16", () => {
  assert.equal(characters("ä👩日"), 3);
});

test("counts bytes of all kinds of JSON", () => {
  assert.equal(jsonBytes({ a: [1, true, null, { b: "ü" }] }), '{"a": [1, true, null, {"b": "ü"}]}'.length + 1);
});
