import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { printable, printableLine } from "./printable.ts";

test("shows controls, direction marks and no-width characters as marks", () => {
  assert.equal(printable("a\u001b[31mb\u202ec\u200bd\u0000"), "a␛[31mb⟨202E⟩c⟨200B⟩d␀");
});

test("leaves tabs, line ends and all other text as it is", () => {
  const text = "name\tvalue\nÄ 日本語 👩‍🔬".replace("\u200d", "");
  assert.equal(printable(text), text);
  assert.equal(printable("a\r\nb"), "a\nb");
});

test("shows what would end or indent the line that a name is in", () => {
  assert.equal(printableLine("a\tb\nc\r\nd\u202e"), "a␉b␊c␍␊d⟨202E⟩");
});

test("marks the characters that the command line takes out, and no others", () => {
  const file = new URL("../../../tests/golden/unseen_characters.json", import.meta.url);
  const unseen = (JSON.parse(readFileSync(file, "utf8")) as [string, string][]).map((range) =>
    range.map((code) => Number.parseInt(code, 16)),
  );
  for (let code = 0; code <= 0x10ffff; code++) {
    const text = String.fromCodePoint(code);
    const isUnseen = unseen.some(([first = 0, last = 0]) => first <= code && code <= last);
    if ((printable(text) !== text) !== isUnseen) assert.fail(`U+${code.toString(16)}`);
  }
});
