import assert from "node:assert/strict";
import { test } from "node:test";
import { microdollars, money } from "./money.ts";

test("shows cents, and as much below them as there is", () => {
  assert.equal(money(0), "$0.00");
  assert.equal(money(2_500_000), "$2.50");
  assert.equal(money(1_300), "$0.0013");
});

test("reads dollars exactly", () => {
  assert.equal(microdollars("2.50"), 2_500_000);
  assert.equal(microdollars(" $ 0,07 "), 70_000);
  assert.equal(microdollars("12"), 12_000_000);
  assert.equal(microdollars("0.000001"), 1);
  for (const text of ["", "-1", "1e3", "1.2.3", "five", "0.0000001"]) assert.equal(microdollars(text), undefined);
});
