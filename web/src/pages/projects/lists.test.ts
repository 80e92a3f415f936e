import assert from "node:assert/strict";
import { test } from "node:test";
import type { Schemas } from "../../api/client.ts";
import { named, openBuilds } from "./lists.ts";

type Build = Schemas["BuildOut"];

function build(id: string, change: object): Build {
  return {
    id,
    status: "code",
    waiting_for: null,
    question: null,
    created_at: "2026-01-01T00:00:00Z",
    ...change,
  } as Build;
}

test("puts builds that wait for the founder first, the longest waiting first", () => {
  const asks = (at: string) => ({ status: "needs_input", waiting_for: "founder", question: { asked_at: at } });
  const { needYou, running } = openBuilds([
    build("works", {}),
    build("asks late", asks("2026-02-02T00:00:00Z")),
    build("waits for operators", { status: "needs_input", waiting_for: "operator" }),
    build("asks early", asks("2026-02-01T00:00:00Z")),
    build("sleeps", { status: "sleeping" }),
    build("of a newer server", { status: "dreaming" }),
  ]);
  assert.deepEqual(
    needYou.map(({ id }) => id),
    ["asks early", "asks late"],
  );
  assert.deepEqual(
    running.map(({ id }) => id),
    ["works", "waits for operators", "sleeps", "of a newer server"],
  );
});

test("finds projects by the words of their names", () => {
  const projects = [{ name: "Café Größe" }, { name: "Tool Library" }, { name: "Library of seeds" }];
  assert.deepEqual(named(projects, " "), projects);
  assert.deepEqual(named(projects, "cafe"), [projects[0]]);
  assert.deepEqual(named(projects, "LIB tool"), [projects[1]]);
  assert.deepEqual(named(projects, "nothing"), []);
});
