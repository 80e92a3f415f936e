import assert from "node:assert/strict";
import { test } from "node:test";
import type { Schemas } from "../../api/client.ts";
import { foldLine, NEWEST_PHASES, timelineOf, UNFOLDED_PHASES } from "./timeline.ts";

const at = (minute: number) => new Date(Date.UTC(2026, 10, 24, 12, minute)).toISOString();
const BUILD = { created_at: at(0), started_at: at(0), closed_at: null, status: "code" };
const PROGRESS: Schemas["ProgressOut"] = {
  turn: 1,
  calls: 1,
  failed_calls: 0,
  unread: 0,
  queue_place: null,
  phases: [],
  gates: [],
  sleeps: [],
};
const phase = (number: number, minute: number) => ({
  number,
  title: `p${number}`,
  commit: `${number}abcdef0`,
  turn: number,
  ended_at: at(minute),
});
const snapshot = (number: number, commit: string | null, minute: number) => ({
  number,
  reason: "phase",
  final: false,
  kept: false,
  bytes: 1,
  sha256: null,
  files: 1,
  commit,
  stored_at: at(minute),
});

test("puts a phase's snapshot to the phase, and others by themselves in their place", () => {
  const snapshots = [snapshot(3, null, 9), snapshot(2, "2abcdef0123", 8), snapshot(1, "1abcdef0123", 4)];
  const points = timelineOf(BUILD, { ...PROGRESS, phases: [phase(1, 3), phase(2, 7)] }, snapshots, Date.parse(at(12)));
  assert.deepEqual(
    points.map((point) => point.key.split(" ").slice(0, 2).join(" ")),
    ["phase 1", "phase 2", "snapshot 3", "now"],
  );
  assert.deepEqual(
    points.flatMap((point) => (point.kind === "phase" ? [point.snapshot] : [])),
    [1, 2],
  );
  assert.equal(points.at(-1)?.at, Date.parse(at(7)), "the work of now began when the last phase ended");
});

test("puts all snapshots of a phase's commit to the phase, unless something else was its reason", () => {
  const snapshots = [
    { ...snapshot(3, "1abcdef0123", 6), reason: "gate" },
    { ...snapshot(2, "1abcdef0123", 5), reason: "sleep" },
    snapshot(1, "1abcdef0123", 4),
  ];
  const points = timelineOf(BUILD, { ...PROGRESS, phases: [phase(1, 3)] }, snapshots, Date.parse(at(12)));
  assert.deepEqual(
    points.map((point) => point.key.split(" ").slice(0, 2).join(" ")),
    ["phase 1", "snapshot 2", "now"],
  );
});

test("leaves sleep out of a phase's time", () => {
  const sleeps = [{ since: at(2), until: at(12), reason: null, wakes_at: null }];
  const [sleep, done] = timelineOf(BUILD, { ...PROGRESS, phases: [phase(1, 15)], sleeps }, [], Date.parse(at(20)));
  assert.equal(sleep?.kind === "sleep" && sleep.seconds, 600);
  assert.equal(done?.kind === "phase" && done.seconds, 300);
});

test("has no work of now before the build has started, and the end once it has ended", () => {
  assert.deepEqual(timelineOf({ ...BUILD, started_at: null, status: "queued" }, PROGRESS, [], 0), []);
  const [end] = timelineOf({ ...BUILD, closed_at: at(30), status: "ready" }, PROGRESS, [], 0);
  assert.equal(end?.kind === "now" && end.ended, true);
});

test("ends with the sleep while it lasts", () => {
  const sleeps = [{ since: at(2), until: null, reason: null, wakes_at: null }];
  const points = timelineOf(BUILD, { ...PROGRESS, sleeps }, [], Date.parse(at(20)));
  assert.deepEqual(
    points.map((point) => point.kind),
    ["sleep"],
  );
});

test("folds a long line to its first phase and the newest, and leaves a short one as it is", () => {
  const lineOf = (phases: number) =>
    timelineOf(
      BUILD,
      {
        ...PROGRESS,
        phases: Array.from({ length: phases }, (_, index) => phase(index + 1, 2 * index + 2)),
        sleeps: [{ since: at(1), until: at(1.5), reason: null, wakes_at: null }],
      },
      [snapshot(1, null, 5)],
      Date.parse(at(1000)),
    );
  const names = (points: readonly { key: string }[]) => points.map(({ key }) => key.split(" ").slice(0, 2).join(" "));

  const short = lineOf(UNFOLDED_PHASES);
  assert.deepEqual(foldLine(short), { first: short, folded: [], foldedPhases: 0, newest: [] });

  const long = lineOf(100);
  const { first, folded, foldedPhases, newest } = foldLine(long);
  assert.deepEqual([...first, ...folded, ...newest], long, "no point is lost, and the order stays");
  assert.deepEqual(names(first), [`sleep ${at(1)}`, "phase 1"]);
  assert.equal(foldedPhases, 100 - 1 - NEWEST_PHASES);
  assert.deepEqual(names(folded).slice(0, 2), ["phase 2", "snapshot 1"], "what is between the phases is folded too");
  assert.deepEqual(names(newest)[0], `phase ${100 - NEWEST_PHASES + 1}`);
  assert.equal(newest.at(-1)?.kind, "now");
});
