import assert from "node:assert/strict";
import { test } from "node:test";
import { parseStart } from "./start.ts";

const ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427";

test("reads what a new build begins with", () => {
  assert.deepEqual(parseStart(ID), { buildId: ID });
  assert.deepEqual(parseStart(`${ID}:3`), { buildId: ID, snapshot: 3 });
});

test("reads nothing else", () => {
  for (const text of [null, "", "3", `${ID}:0`, `${ID}:x`, `${ID}:1:2`, `../${ID}`]) {
    assert.equal(parseStart(text), undefined);
  }
});
