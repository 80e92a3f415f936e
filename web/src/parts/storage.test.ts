import assert from "node:assert/strict";
import { test } from "node:test";
import { guarded, type Store } from "./storage.ts";

test("a forbidden storage keeps until the page is left, and never throws", () => {
  const store = guarded(() => {
    throw new DOMException("The operation is insecure.", "SecurityError");
  });
  assert.equal(store.getItem("theme"), null);
  store.setItem("theme", "dark");
  assert.equal(store.getItem("theme"), "dark");
  store.removeItem("theme");
  assert.equal(store.getItem("theme"), null);
});

test("a storage that is full for a while shows the newest value", () => {
  const values = new Map([["draft", "old"]]);
  let isFull = true;
  const browser: Store = {
    getItem: (name) => values.get(name) ?? null,
    setItem: (name, value) => {
      if (isFull) throw new DOMException("The quota has been exceeded.", "QuotaExceededError");
      values.set(name, value);
    },
    removeItem: (name) => void values.delete(name),
  };
  const store = guarded(() => browser);
  store.setItem("draft", "new");
  assert.equal(store.getItem("draft"), "new");
  isFull = false;
  store.setItem("draft", "newest");
  assert.equal(values.get("draft"), "newest");
  assert.equal(store.getItem("draft"), "newest");
});
