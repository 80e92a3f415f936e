import assert from "node:assert/strict";
import { test } from "node:test";
import { documentsOf, linkedPath } from "./documents.ts";

test("the documents of a workspace, README first", () => {
  assert.deepEqual(
    documentsOf(["CHANGELOG.md", "PLAN.md", "README.md", "app/README.md", "docs/a/b.md", "notes.md", "x.py"]),
    ["README.md", "PLAN.md", "CHANGELOG.md", "notes.md", "docs/a/b.md"],
  );
});

test("links between documents stay in the workspace", () => {
  assert.equal(linkedPath("docs/a.md", "b.md#part"), "docs/b.md");
  assert.equal(linkedPath("docs/a.md", "../app/my%20file.py?x"), "app/my file.py");
  assert.equal(linkedPath("docs/a.md", "/README.md"), "README.md");
  assert.equal(linkedPath("README.md", "50%.md"), "50%.md");
  assert.equal(linkedPath("README.md", "../../etc/passwd"), undefined);
  assert.equal(linkedPath("README.md", "./"), undefined);
});
