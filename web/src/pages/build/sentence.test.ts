import assert from "node:assert/strict";
import { test } from "node:test";
import type { Schemas } from "../../api/client.ts";
import { type Facts, nightOf, sentence } from "./sentence.ts";

type Build = Schemas["BuildOut"];
type Progress = Schemas["ProgressOut"];

const NOW = Date.parse("2026-11-24T20:48:00Z");

const BUILD = {
  id: "b",
  status: "code",
  waiting_for: null,
  dependency: null,
  reason: null,
  question: null,
  agent_questions: [],
  wakes_at: null,
  judgement: null,
  build_version: null,
  max_nights: 7,
  cancel_requested_at: null,
  closed_at: null,
} as unknown as Build;

const PROGRESS: Progress = {
  turn: 41,
  calls: 96,
  failed_calls: 3,
  unread: 0,
  queue_place: null,
  phases: [],
  gates: [],
  sleeps: [],
};

const say = (change: Partial<Build>, facts: Partial<Facts> = {}) =>
  sentence({ ...BUILD, ...change }, { progress: PROGRESS, snapshot: 12, said: null, now: NOW, ...facts });

// tsc fails here if the API's enums grow: a new value needs a sentence, and its test.
const STATUSES: Record<Schemas["Status"], RegExp> = {
  queued: /^It starts in a moment\.$/,
  starting: /^Opening a sandbox/,
  scaffold: /^Reading your idea/,
  code: /^The agent is at work\.$/,
  checks: /fresh sandbox/,
  sleeping: /^Today's allowance is used up\. Your work is saved as snapshot 12\.$/,
  waiting: /^A service that your build needs/,
  needs_input: /^The build waits for you\.$/,
  ready: /^It passed its checks\.$/,
  failed: /^The build ended with an error\. Your work is kept as snapshot 12\.$/,
  cancelled: /^It was stopped\. Your work is kept as snapshot 12\.$/,
};
const WAITING_FOR: Record<Schemas["WaitingFor"], RegExp> = {
  founder: /^The build waits for you\.$/,
  operator: /nothing for you to do/,
  store: /Nothing is lost\. It tries again when you wake it\.$/,
  kill_switch: /continues by itself when they are switched on again/,
};
const DEPENDENCIES: Record<Schemas["Dependency"], RegExp> = {
  store: /stores your work/,
  sandbox: /runs your build's computer/,
  model: /AI model/,
  capacity: /in use/,
};

for (const [status, expected] of Object.entries(STATUSES)) {
  test(`says how a build is that is ${status}`, () =>
    assert.match(say({ status: status as Build["status"] }).text, expected));
}
for (const [who, expected] of Object.entries(WAITING_FOR)) {
  test(`says that a build waits for ${who}`, () => {
    const change = { status: "needs_input", waiting_for: who as Build["waiting_for"] } as const;
    assert.match(say(change).text, expected);
    assert.match(say({ ...change, reason: "Because of this." }).text, /^Because of this\./);
  });
}
for (const [what, expected] of Object.entries(DEPENDENCIES)) {
  test(`says that a build waits for ${what}`, () => {
    const change = { status: "waiting", dependency: what as Build["dependency"] } as const;
    assert.match(say(change).text, expected);
    assert.match(say({ ...change, reason: "It is away." }).text, /^It is away\. Your work is saved/);
  });
}

test("says what the agent said last", () => {
  assert.equal(say({ status: "code" }, { said: "The form saves now." }).text, "The form saves now.");
});

test("says when a sleeping build goes on, which night it is, and where its work is", () => {
  const sleeps = [
    { since: "2026-11-23T21:00:00Z", until: "2026-11-24T00:02:00Z", reason: null, wakes_at: null },
    { since: "2026-11-24T20:00:00Z", until: null, reason: null, wakes_at: null },
  ];
  const { text, actions } = say(
    { status: "sleeping", reason: "Not enough is left.", wakes_at: "2026-11-25T00:00:00Z" },
    { progress: { ...PROGRESS, sleeps } },
  );
  assert.match(
    text,
    /^Not enough is left\. It goes on at 00:00 UTC.*, in 3 h 12 min\. Night 2 of at most 7\. Your work is saved as snapshot 12\.$/,
  );
  assert.deepEqual(actions, ["wake", "say", "stop"]);
});

test("counts no night for a sleep that ended on its own day", () => {
  const sleeps = [
    { since: "2026-11-24T10:00:00Z", until: "2026-11-24T11:00:00Z", reason: null, wakes_at: null },
    { since: "2026-11-24T20:00:00Z", until: null, reason: null, wakes_at: null },
  ];
  assert.equal(nightOf({ ...PROGRESS, sleeps }, NOW), 1);
  assert.equal(nightOf(PROGRESS, NOW), null);
});

test("says that a build whose time has come goes on in a moment", () => {
  assert.match(say({ status: "sleeping", wakes_at: "2026-11-24T20:47:59Z" }).text, /goes on in a moment/);
});

test("says the place in the queue after the reason", () => {
  const text = say(
    { status: "queued", reason: "Your other builds come first." },
    { progress: { ...PROGRESS, queue_place: 3 } },
  ).text;
  assert.equal(text, "Your other builds come first. It is number 3 in the queue.");
});

test("offers the answer if there is a question, and to go on if there is none", () => {
  const question = {
    id: "q",
    problem: "?",
    tried: [],
    options: [],
    default: null,
    asked_at: "",
    answer: null,
    answered_at: null,
  };
  assert.equal(say({ status: "needs_input", waiting_for: "founder", question }).actions[0], "answer");
  assert.equal(say({ status: "needs_input", waiting_for: "founder" }).actions[0], "goOn");
});

test("says with how many tests a version is ready, and what the judge misses", () => {
  const gate = {
    number: 1,
    snapshot: 5,
    findings: [],
    tests_run: 14,
    screenshots: {},
    started_at: "",
    ended_at: "",
    passed: true,
  };
  const judgement = { gate: 1, model: "m", findings: ["No export."], returned: false, not_judged: null };
  const { text } = say({ status: "ready", build_version: 3, judgement }, { progress: { ...PROGRESS, gates: [gate] } });
  assert.equal(
    text,
    "Version 3 passed its checks: 14 tests, and its pages answer. The judge still misses 1 thing: see the last check.",
  );
});

test("says who stopped it, and if there is nothing to keep", () => {
  const change = {
    status: "cancelled",
    cancel_requested_at: "2026-11-24T20:00:00Z",
    closed_at: "2026-11-24T20:01:00Z",
  } as const;
  const nothing = say(change, { snapshot: undefined });
  assert.match(nothing.text, /^You stopped it\. There is no snapshot of it/);
  assert.deepEqual(nothing.actions, []);
  assert.deepEqual(say(change).actions, ["again", "download"]);
  assert.match(say({ status: "code", cancel_requested_at: "2026-11-24T20:00:00Z" }).text, /^It is stopping\./);
});

test("does not fail at a status of a newer server", () => {
  assert.match(say({ status: "paused" as Build["status"] }).text, /older than the server/);
});
