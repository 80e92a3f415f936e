import assert from "node:assert/strict";
import { test } from "node:test";
import { changedSpans, parsePatch, unquoted } from "./patch.ts";

const PATCH = [
  "diff --git a/app/old name.py b/app/new name.py",
  "similarity index 90%",
  "rename from app/old name.py",
  "rename to app/new name.py",
  "index 111..222 100644",
  "--- a/app/old name.py\t",
  "+++ b/app/new name.py\t",
  "@@ -1,3 +1,3 @@ def begin():",
  " one",
  "--- two",
  "+++ two",
  " three\r",
  "@@ -9 +9,2 @@",
  "-nine",
  "\\ No newline at end of file",
  "+nine",
  "+ten",
  "diff --git a/logo.png b/logo.png",
  "new file mode 100644",
  "index 0000000..333",
  "Binary files /dev/null and b/logo.png differ",
  "diff --git a/run b/run",
  "old mode 100644",
  "new mode 100755",
  'diff --git "a/a \\"b\\"\\n\\303\\251" "b/a \\"b\\"\\n\\303\\251"',
  "deleted file mode 100644",
  '--- "a/a \\"b\\"\\n\\303\\251"',
  "+++ /dev/null",
  "@@ -1,2 +0,0 @@",
  "-diff --git a/x b/x",
  "-",
  "",
].join("\n");

test("the files of a patch, with their changes", () => {
  const files = parsePatch(PATCH);
  assert.deepEqual(
    files.map(({ path, oldPath, change, binary, mode, additions, deletions }) => ({
      ...{ path, oldPath, change, binary, mode, additions, deletions },
    })),
    [
      {
        ...{ path: "app/new name.py", oldPath: "app/old name.py", change: "renamed", binary: false, mode: undefined },
        ...{ additions: 3, deletions: 2 },
      },
      {
        ...{ path: "logo.png", oldPath: undefined, change: "added", binary: true, mode: undefined },
        ...{ additions: 0, deletions: 0 },
      },
      {
        ...{ path: "run", oldPath: undefined, change: "changed", binary: false, mode: "100644 → 100755" },
        ...{ additions: 0, deletions: 0 },
      },
      {
        ...{ path: 'a "b"\né', oldPath: undefined, change: "deleted", binary: false, mode: undefined },
        ...{ additions: 0, deletions: 2 },
      },
    ],
  );
});

test("lines keep their text and their numbers, also those that look like headers", () => {
  const [first, , , last] = parsePatch(PATCH);
  assert.equal(first?.hunks[0]?.section, "def begin():");
  assert.deepEqual(
    first?.hunks.flatMap(({ lines }) => lines.map((line) => [line.kind, line.old, line.new, line.text])),
    [
      ["context", 1, 1, "one"],
      ["del", 2, undefined, "-- two"],
      ["add", undefined, 2, "++ two"],
      ["context", 3, 3, "three\r"],
      ["del", 9, undefined, "nine"],
      ["note", undefined, undefined, "No newline at end of file"],
      ["add", undefined, 9, "nine"],
      ["add", undefined, 10, "ten"],
    ],
  );
  assert.deepEqual(
    last?.hunks[0]?.lines.map(({ text }) => text),
    ["diff --git a/x b/x", ""],
  );
});

test("a patch that is cut off keeps what there is", () => {
  const files = parsePatch("diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,5 +1,6 @@\n one\n+tw");
  assert.deepEqual(
    files[0]?.hunks[0]?.lines.map(({ text }) => text),
    ["one", "tw"],
  );
  assert.deepEqual(parsePatch(""), []);
});

test("paths in quotes", () => {
  assert.equal(unquoted("plain"), "plain");
  assert.equal(unquoted('"tab\\there"'), "tab\there");
  assert.equal(unquoted('"\\360\\237\\230\\200😀\\\\"'), "😀😀\\");
});

test("what differs within a changed line", () => {
  const line = (kind: "add" | "del", text: string) => ({ kind, text, old: undefined, new: undefined });
  const lines = [line("del", "return a 😀 + b"), line("del", "x"), line("add", "return a 😁 + b"), line("add", "y")];
  assert.deepEqual(
    [...changedSpans(lines)],
    [
      [0, [9, 11]],
      [2, [9, 11]],
    ],
  );
});
