import assert from "node:assert/strict";
import { test } from "node:test";
import { afterSending, EMPTY_DRAFT, isAsSent, readDraft, toSend, withMessage, writeDraft } from "./draft.ts";

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

test("only the text that was sent may be sent again unasked", () => {
  const draft = toSend({ ...EMPTY_DRAFT, text: "hello " }, newKey);
  assert(isAsSent(draft));
  assert(isAsSent({ ...draft, text: "hello" }));
  assert(!isAsSent({ ...draft, text: "hello, and" }));
  assert(!isAsSent({ ...EMPTY_DRAFT, text: "hello" }));
});

test("what was written while a message was sent or taken back stays", () => {
  const draft = toSend({ ...EMPTY_DRAFT, text: "hello " }, newKey);
  assert.deepEqual(afterSending(draft, "hello"), EMPTY_DRAFT);
  assert.deepEqual(afterSending({ ...draft, text: "the next" }, "hello"), { ...EMPTY_DRAFT, text: "the next" });
  assert.equal(withMessage({ ...EMPTY_DRAFT, text: "more" }, "hello").text, "hello\nmore");
  assert.equal(withMessage({ ...EMPTY_DRAFT, text: " " }, "hello").text, "hello");
});

test("reads nothing from what it did not write", () => {
  const store = storage();
  store.setItem("cofounder-draft-one", "{");
  assert.deepEqual(readDraft(store, "one"), EMPTY_DRAFT);
  store.setItem("cofounder-draft-one", '{"text": 7}');
  assert.deepEqual(readDraft(store, "one"), EMPTY_DRAFT);
});
