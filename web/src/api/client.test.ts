import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

// The client is made for a page, which has an address.
Object.assign(globalThis, { location: { origin: "http://127.0.0.1:8000" } });
const { Problem, problemOf } = await import("./client.ts");

/** The kinds that a page treats in a way of its own. All others are shown with their `detail`, which says what to do. */
const OWN_VIEW = new Set([
  "already-answered",
  "autonomous-agent-off",
  "invalid-request",
  "message-read",
  "not-found",
  "open-build",
  "unauthorized",
  "version-conflict",
]);

const WITH_DETAIL = new Set([
  "account-suspended",
  "body-too-large",
  "build-closed",
  "build-not-ready",
  "conflict",
  "cross-site",
  "foreign-host",
  "idempotency-key-reused",
  "insufficient-scope",
  "internal",
  "last-owner",
  "malformed-http",
  "malformed-json",
  "method-not-allowed",
  "no-secrets-key",
  "project-archived",
  "push-failed",
  "refused",
  "restore-waits",
  "sign-in-link",
  "single-user",
  "snapshot-not-stored",
  "too-many-requests",
  "too-many-unread",
  "unavailable",
  "unsupported-media-type",
]);

function kinds(): { slug: string; status: number }[] {
  const source = readFileSync(new URL("../../../api/errors.py", import.meta.url), "utf8");
  return [...source.matchAll(/^[A-Z_]+ = Kind\("([a-z-]+)", (\d+),/gm)].map(([, slug = "", status]) => ({
    slug,
    status: Number(status),
  }));
}

function answer(body: string, status: number, headers: Record<string, string>): Promise<InstanceType<typeof Problem>> {
  return problemOf(new Response(body, { status, headers }));
}

test("knows every kind of problem that the API has", () => {
  const all = kinds().map(({ slug }) => slug);
  assert.ok(all.length > 30);
  assert.deepEqual(
    all.filter((slug) => !OWN_VIEW.has(slug) && !WITH_DETAIL.has(slug)),
    [],
    "say here how the console shows this kind",
  );
  assert.deepEqual(
    [...OWN_VIEW, ...WITH_DETAIL].filter((slug) => !all.includes(slug)),
    [],
    "the API has no such kind any more",
  );
});

for (const { slug, status } of kinds()) {
  test(`reads a problem of the kind ${slug}`, async () => {
    const type = `urn:cofounder:problem:${slug}`;
    const body = JSON.stringify({ type, title: "A title", status, detail: "Do this.", current_version: 4 });
    const problem = await answer(body, status, { "Content-Type": "application/problem+json" });
    assert.equal(problem.kind, slug);
    assert.equal(problem.status, status);
    assert.equal(problem.message, "Do this.");
    assert.equal(problem.body.current_version, 4);
  });
}

test("reads the fields that the API refuses, and nothing else as such", async () => {
  const errors = [{ field: "brief.name", message: "too long" }, { field: 7 }, null, "x"];
  const problem = await answer(JSON.stringify({ detail: "No.", errors }), 422, { "Content-Type": "application/json" });
  assert.deepEqual(problem.errors, [{ field: "brief.name", message: "too long" }]);
});

const BROKEN: [string, string, string][] = [
  ["the page of a proxy", "<html><body>Bad Gateway</body></html>", "text/html"],
  ["JSON that is cut", '{"type": "urn:cofou', "application/problem+json"],
  ["JSON that is no object", "[1, 2]", "application/json"],
  ["null", "null", "application/json"],
  ["a number as type and detail", '{"type": 5, "detail": 7}', "application/json"],
  ["nothing", "", "application/json"],
];

for (const [what, body, type] of BROKEN) {
  test(`makes a problem of ${what}`, async () => {
    const problem = await answer(body, 502, { "Content-Type": type });
    assert.equal(problem.kind, "error");
    assert.match(problem.message, /status 502\. Try again/);
    assert.deepEqual(problem.errors, []);
  });
}

test("reads after how many seconds to ask again", async () => {
  const after = async (value: string) => (await answer("", 503, { "Retry-After": value })).retryAfter;
  assert.equal(await after("7"), 7);
  assert.equal(await after("Wed, 21 Oct 2026 07:28:00 GMT"), undefined);
});
