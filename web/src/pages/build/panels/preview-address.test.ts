import assert from "node:assert/strict";
import { test } from "node:test";
import { inProduct, previewAddress } from "./preview-address.ts";

const LOCAL = ["http://*.localhost:8000"];

test("only an address at which this installation serves previews", () => {
  assert.equal(previewAddress("http://0a1b.localhost:8000/", LOCAL)?.origin, "http://0a1b.localhost:8000");
  assert.ok(previewAddress("https://app-1.preview.example/x?y", ["https://*.preview.example"]));
  for (const other of [
    "http://localhost:8000/",
    "http://a.b.localhost:8000/",
    "http://a.localhost:8001/",
    "https://a.localhost:8000/",
    "http://a.localhost:8000.evil.example/",
    "http://user@a.localhost:8000/",
    "javascript:alert(1)",
    "http://127.0.0.1:8000/",
    "",
  ]) {
    assert.equal(previewAddress(other, LOCAL), undefined, other);
  }
});

test("a path stays in the product", () => {
  const origin = "http://a.localhost:8000";
  assert.equal(inProduct(origin, "admin?x=1#y"), `${origin}/admin?x=1#y`);
  for (const path of [
    "//evil.example/",
    "\\\\evil.example",
    "https://evil.example/",
    "javascript:alert(1)",
    " /\\/evil",
  ]) {
    assert.equal(new URL(inProduct(origin, path)).origin, origin, path);
  }
});
