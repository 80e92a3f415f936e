import assert from "node:assert/strict";
import { test } from "node:test";
import { showsHost, webAddress } from "./webAddress.ts";

test("takes http and https only", () => {
  assert.equal(webAddress("https://example.com/a")?.host, "example.com");
  assert.equal(webAddress("javascript:alert(1)"), undefined);
  assert.equal(webAddress("data:text/html,hello"), undefined);
  assert.equal(webAddress("example.com"), undefined);
});

test("a text shows the host of its link only if it is an address of the same host", () => {
  const url = new URL("https://evil.example/pay");
  for (const text of ["https://evil.example/pay", "evil.example", "evil.example/other", "http://evil.example"]) {
    assert(showsHost(text, url), text);
  }
  for (const text of [
    "Pay here",
    "https://bank.example/evil.example",
    "https://evil.example.bank.example",
    "bank.example?to=evil.example",
    "https://bank.example@evil.example",
    "bank.example (not evil.example)",
    "evil.example and bank.example",
  ]) {
    assert(!showsHost(text, url), text);
  }
  const lookalike = "https://\u0430pple.example";
  assert(!showsHost(lookalike, new URL(lookalike)), "the text shows a letter of another alphabet");
});
