import assert from "node:assert/strict";
import { test } from "node:test";
import { csv } from "./csv.ts";

test("quotes what would end a cell or a row", () => {
  assert.equal(csv([["a,b", 'say "hi"', "two\nlines", 3, null]]), '"a,b","say ""hi""","two\nlines",3,');
});

test("keeps a spreadsheet from computing text", () => {
  for (const text of ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"]) assert.equal(csv([[text]])[0], "'");
  assert.equal(csv([['=HYPERLINK("http://x")']]), '"\'=HYPERLINK(""http://x"")"');
  assert.equal(csv([[-1]]), "-1");
});
