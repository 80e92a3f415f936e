import assert from "node:assert/strict";
import { test } from "node:test";
import { printable } from "./printable.ts";

test("shows controls, direction marks and no-width characters as marks", () => {
  assert.equal(printable("a\u001b[31mb\u202ec\u200bd\u0000"), "a␛[31mb⟨202E⟩c⟨200B⟩d␀");
});

test("leaves tabs, line ends and all other text as it is", () => {
  const text = "name\tvalue\nÄ 日本語 👩‍🔬".replace("\u200d", "");
  assert.equal(printable(text), text);
  assert.equal(printable("a\r\nb"), "a\nb");
});
