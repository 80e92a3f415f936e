import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY_DRAFT, readDraft, toSend, writeDraft } from "./draft.ts";

function storage() {
  const values = new Map<string, string>();
  return {
    getItem: (name: string) => values.get(name) ?? null,
    setItem: (name: string, value: string) => void values.set(name, value),
    removeItem: (name: string) => void values.delete(name),
  };
}

let keys = 0;
const newKey = () => `key ${++keys}`;

test("keeps a draft per build, and nothing of an empty one", () => {
  const store = storage();
  writeDraft(store, "one", { ...EMPTY_DRAFT, text: "hello" });
  assert.equal(readDraft(store, "one").text, "hello");
  assert.deepEqual(readDraft(store, "two"), EMPTY_DRAFT);
  writeDraft(store, "one", EMPTY_DRAFT);
  assert.deepEqual(readDraft(store, "one"), EMPTY_DRAFT);
});

test("sends the same text with the same key, and a changed one with another", () => {
  const first = toSend({ ...EMPTY_DRAFT, text: "hello " }, newKey);
  assert.equal(toSend(first, newKey).key, first.key);
  assert.notEqual(toSend({ ...first, text: "hello there" }, newKey).key, first.key);
});

test("reads nothing from what it did not write", () => {
  const store = storage();
  store.setItem("cofounder-draft-one", "{");
  assert.deepEqual(readDraft(store, "one"), EMPTY_DRAFT);
  store.setItem("cofounder-draft-one", '{"text": 7}');
  assert.deepEqual(readDraft(store, "one"), EMPTY_DRAFT);
});
