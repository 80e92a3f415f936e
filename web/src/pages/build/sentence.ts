/** What a build's head says: one or more sentences, and what its founder can do now. Pure. */

import type { Schemas } from "../../api/client.ts";
import { duration, utcAndLocal } from "../../parts/clock.ts";
import { sentences } from "../../words/build.ts";

type Build = Schemas["BuildOut"];
type Progress = Schemas["ProgressOut"];

/** What the head offers beside its sentence. The menu has the others. */
export type Action =
  | "answer"
  | "say"
  | "wake"
  | "goOn"
  | "finish"
  | "stop"
  | "product"
  | "download"
  | "again"
  | "continue";

export interface Sentence {
  readonly text: string;
  readonly actions: readonly Action[];
}

/** What a sentence depends on besides the build's row. */
export interface Facts {
  readonly progress: Progress | undefined;
  /** The number of the current snapshot. */
  readonly snapshot: number | undefined;
  /** The agent's last sentence. */
  readonly said: string | null;
  /** Milliseconds since 1970. */
  readonly now: number;
}

/** Say how the build is. A status of a newer server gets a sentence, too. */
export function sentence(build: Build, facts: Facts): Sentence {
  if (build.cancel_requested_at !== null && build.closed_at === null) return { text: sentences.stopping, actions: [] };
  switch (build.status) {
    case "queued":
      return { text: queued(build, facts), actions: ["stop"] };
    case "starting":
      return { text: sentences.starting, actions: ["stop"] };
    case "scaffold":
      return { text: facts.said ?? sentences.scaffold, actions: ["say", "stop"] };
    case "code":
      return { text: facts.said ?? sentences.code, actions: ["say", "finish", "stop"] };
    case "checks":
      return { text: sentences.checks, actions: ["stop"] };
    case "sleeping":
      return { text: sleeping(build, facts), actions: ["wake", "say", "stop"] };
    case "waiting":
      return { text: waiting(build, facts), actions: ["say", "stop"] };
    case "needs_input":
      return needsInput(build, facts);
    case "ready":
      return { text: ready(build, facts), actions: ["product", "download", "continue"] };
    case "failed":
      return { text: joined(build.reason ?? sentences.failed, kept(facts)), actions: afterEnd(facts) };
    case "cancelled": {
      const who = build.cancel_requested_at === null ? (build.reason ?? sentences.cancelled) : sentences.cancelledByYou;
      return { text: joined(who, kept(facts)), actions: afterEnd(facts) };
    }
    default:
      return { text: (build as Build).reason ?? sentences.unknown, actions: [] };
  }
}

function queued(build: Build, { progress }: Facts): string {
  const place = progress?.queue_place ?? null;
  return joined(
    build.reason ?? sentences.queued,
    place !== null && build.reason !== null && sentences.queuePlace(place),
  );
}

function sleeping(build: Build, facts: Facts): string {
  const night = nightOf(facts.progress, facts.now);
  return joined(
    build.reason ?? sentences.sleeping,
    goesOn(build.wakes_at, facts.now),
    night !== null && build.max_nights > 0 && sentences.night(night, Math.max(build.max_nights, night)),
    saved(facts),
  );
}

function waiting(build: Build, facts: Facts): string {
  const known: Record<string, string> = sentences.waiting;
  const usual = build.dependency === null ? undefined : known[build.dependency];
  return joined(build.reason ?? usual ?? sentences.waitingUnknown, saved(facts));
}

function needsInput(build: Build, facts: Facts): Sentence {
  const waitingFor = build.waiting_for;
  const known: Record<string, string> = sentences.needs;
  const reason = build.reason ?? (waitingFor === null ? undefined : known[waitingFor]) ?? sentences.needs.founder;
  switch (waitingFor) {
    case "operator":
      return { text: joined(reason, sentences.needsNothing, saved(facts)), actions: ["say", "stop"] };
    case "store":
      return { text: joined(reason, sentences.needsStore), actions: ["wake", "stop"] };
    case "kill_switch":
      return { text: joined(reason, sentences.needsSwitch, saved(facts)), actions: ["stop"] };
    default:
      if (build.question !== null) return { text: sentences.asks, actions: ["answer", "finish", "stop"] };
      return { text: joined(reason, goesOn(build.wakes_at, facts.now)), actions: ["goOn", "say", "finish", "stop"] };
  }
}

function ready(build: Build, { progress }: Facts): string {
  const passed = progress?.gates.findLast((gate) => gate.passed);
  const tests = passed?.tests_run ?? null;
  const findings = build.judgement !== null && !build.judgement.returned ? build.judgement.findings.length : 0;
  return joined(
    tests === null ? sentences.ready(build.build_version) : sentences.readyTests(build.build_version, tests),
    findings > 0 && sentences.missing(findings),
  );
}

function goesOn(wakesAt: string | null, now: number): string | false {
  if (wakesAt === null) return false;
  const at = new Date(wakesAt);
  const left = (at.getTime() - now) / 1000;
  return left < 1 ? sentences.goesOnSoon : sentences.goesOn(utcAndLocal(at), duration(left));
}

const saved = ({ snapshot }: Facts): string | false => snapshot !== undefined && sentences.saved(snapshot);

const kept = ({ snapshot, progress }: Facts): string | false => {
  if (snapshot !== undefined) return sentences.kept(snapshot);
  return progress !== undefined && sentences.notKept;
};

/** Without a snapshot there is nothing to begin with, and nothing to download. */
const afterEnd = ({ snapshot }: Facts): readonly Action[] => (snapshot === undefined ? [] : ["again", "download"]);

/** Which night the build sleeps now, from 1; null if it does not. A sleep that ends on its own day is no night. */
export function nightOf(progress: Progress | undefined, now: number): number | null {
  const last = progress?.sleeps.at(-1);
  if (progress === undefined || last === undefined || last.until !== null) return null;
  const day = (time: number | string) => Math.floor(new Date(time).getTime() / 86_400_000);
  return progress.sleeps.reduce((nights, each) => nights + Math.max(0, day(each.until ?? now) - day(each.since)), 1);
}

function joined(...parts: (string | false | undefined)[]): string {
  return parts.filter((part): part is string => typeof part === "string" && part !== "").join(" ");
}
