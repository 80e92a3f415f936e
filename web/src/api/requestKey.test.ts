import assert from "node:assert/strict";
import { test } from "node:test";
import { RequestKey } from "./requestKey.ts";

test("the same body keeps its key, another one gets a new key", () => {
  let count = 0;
  const key = new RequestKey(() => `key ${++count}`);
  assert.equal(key.of({ goal: "one", start: undefined }), "key 1");
  assert.equal(key.of({ goal: "one" }), "key 1");
  assert.equal(key.of({ goal: "two" }), "key 2");
  assert.equal(key.of({ goal: "two", start: 3 }), "key 3");
});
