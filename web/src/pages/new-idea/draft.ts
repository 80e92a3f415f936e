// The draft of an idea: what a person has typed so far, kept in this browser until it is stored. No React, no DOM.
import {
  BRIEF_MAX_BYTES,
  characters,
  FEATURES_MAX,
  GOAL_MAX,
  type Json,
  jsonBytes,
  NAME_MAX,
  TEXT_MAX,
} from "./brief.ts";

export interface Feature {
  /** Names the row while it is edited and moved. */
  key: number;
  text: string;
}

export interface Question {
  id: string;
  text: string;
}

export interface Draft {
  sentence: string;
  name: string;
  problem: string;
  audience: string;
  notes: string;
  features: Feature[];
  /** Fields of a pasted brief that have no input here, sent as they came. */
  more: Json;
  questions: Question[];
  answers: Record<string, string>;
  goal: string;
  policy: string;
  nights: string;
  organisation: string;
  /** The project, once it is stored: a second attempt then starts only the build. */
  projectId: string | null;
  /** Makes one project of any number of attempts. */
  projectKey: string;
  /** Makes one build of any number of attempts with the same options. */
  buildKey: string;
  /** The versions that an edit began with. */
  briefVersion: number;
  interviewVersion: number;
}

export type StepName = "idea" | "interview" | "review";

export const STEPS: StepName[] = ["idea", "interview", "review"];

/** A draft with nothing in it. */
export function emptyDraft(goal: string, newKey: () => string): Draft {
  return {
    sentence: "",
    name: "",
    problem: "",
    audience: "",
    notes: "",
    features: [{ key: 1, text: "" }],
    more: {},
    questions: [],
    answers: {},
    goal,
    policy: "sleep",
    nights: "30",
    organisation: "",
    projectId: null,
    projectKey: newKey(),
    buildKey: newKey(),
    briefVersion: 0,
    interviewVersion: 0,
  };
}

/** The text of a draft that was kept, on top of an empty one; undefined if it is not one. */
export function parseDraft(text: string, empty: Draft): Draft | undefined {
  let kept: unknown;
  try {
    kept = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(kept)) return undefined;
  const draft: Draft = { ...empty };
  for (const name of Object.keys(empty) as (keyof Draft)[]) {
    const value = kept[name];
    // What an older page has kept may lack fields or have them otherwise.
    if (name in kept && (empty[name] === null || kind(value) === kind(empty[name])))
      Object.assign(draft, { [name]: value });
  }
  draft.features = draft.features.filter((each) => typeof each?.text === "string" && typeof each?.key === "number");
  draft.questions = draft.questions.filter((each) => typeof each?.id === "string" && typeof each?.text === "string");
  draft.answers = Object.fromEntries(Object.entries(draft.answers).filter(([, text]) => typeof text === "string"));
  if (draft.projectId !== null && typeof draft.projectId !== "string") draft.projectId = null;
  if (draft.features.length === 0) draft.features = empty.features;
  if (draft.questions.length === 0) draft.questions = empty.questions;
  return draft;
}

function kind(value: unknown): string {
  return Array.isArray(value) ? "array" : value === null ? "null" : typeof value;
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a person has typed anything that would be lost. */
export function hasContent(draft: Draft): boolean {
  return (
    [draft.sentence, draft.name, draft.problem, draft.audience, draft.notes].some((text) => text.trim() !== "") ||
    draft.features.some((each) => each.text.trim() !== "") ||
    Object.keys(draft.more).length > 0 ||
    Object.values(draft.answers).some((text) => text.trim() !== "")
  );
}

/** The draft with a brief in its fields. What has no input is kept verbatim. */
export function withBrief(draft: Draft, brief: Json): Draft {
  const { name, problem, features, audience, notes, ...more } = brief;
  const kept: Json = { ...more };
  const text = (field: string, value: unknown): string => {
    if (typeof value === "string") return value;
    if (value !== undefined) kept[field] = value;
    return "";
  };
  const listed = Array.isArray(features) && features.every((each) => typeof each === "string") ? features : undefined;
  if (features !== undefined && listed === undefined) kept.features = features;
  const next = {
    ...draft,
    name: text("name", name),
    problem: text("problem", problem),
    audience: text("audience", audience),
    notes: text("notes", notes),
    features: featuresOf(listed ?? []),
    more: kept,
  };
  // A required field of another type can't be kept beside its input.
  for (const field of ["name", "problem", "features"]) delete next.more[field];
  return next;
}

/** Rows for a list of features; at least one. */
export function featuresOf(texts: string[]): Feature[] {
  return (texts.length === 0 ? [""] : texts).map((text, index) => ({ key: index + 1, text }));
}

/** A key that no row has yet. */
export function nextKey(features: Feature[]): number {
  return Math.max(0, ...features.map((each) => each.key)) + 1;
}

/** The list with the row at `from` moved by `by` places, or the same list if it can't be. */
export function moved<T>(list: T[], from: number, by: number): T[] {
  const to = from + by;
  if (to < 0 || to >= list.length) return list;
  const next = [...list];
  const [row] = next.splice(from, 1);
  next.splice(to, 0, row as T);
  return next;
}

/** An idea brief: the fields that the API wants, and any others. */
export interface Brief extends Json {
  name: string;
  problem: string;
  features: string[];
}

/** The brief to send. Empty rows and empty optional fields are left out. */
export function briefOf(draft: Draft): Brief {
  const brief: Brief = {
    name: draft.name.trim(),
    problem: draft.problem.trim(),
    features: draft.features.map((each) => each.text.trim()).filter((text) => text !== ""),
  };
  if (draft.audience.trim() !== "") brief.audience = draft.audience.trim();
  if (draft.notes.trim() !== "") brief.notes = draft.notes.trim();
  return { ...draft.more, ...brief };
}

/** The interview to send: all questions, and the answers that are not empty. */
export function interviewOf(draft: Draft): { questions: Question[]; answers: Record<string, string> } {
  const answers: Record<string, string> = {};
  for (const { id } of draft.questions) {
    const text = draft.answers[id]?.trim();
    if (text) answers[id] = text;
  }
  return { questions: draft.questions, answers };
}

/** An id for a question of a person's own. */
export function newQuestionId(questions: Question[]): string {
  let number = 1;
  while (questions.some((each) => each.id === `own_${number}`)) number += 1;
  return `own_${number}`;
}

/** Whether two JSON values are the same. */
export function sameJson(one: unknown, other: unknown): boolean {
  return canonical(one) === canonical(other);
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) =>
    isObject(item) ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1))) : item,
  );
}

/** What is wrong with a field, by the field's name as the API has it, such as `brief.features[0]`. */
export type Mistakes = Record<string, string>;

export interface MistakeWords {
  required: string;
  feature: string;
  tooLong: (count: number, most: number) => string;
  tooMany: (count: number, most: number) => string;
  nights: string;
  tooLarge: (bytes: number, most: number) => string;
}

/** The mistakes in the fields of the first step that the API would refuse. */
export function ideaMistakes(draft: Draft, words: MistakeWords): Mistakes {
  const mistakes: Mistakes = {};
  const check = (field: string, text: string, most: number, required = true) => {
    const count = characters(text.trim());
    if (required && count === 0) mistakes[field] = words.required;
    else if (count > most) mistakes[field] = words.tooLong(count, most);
  };
  check("brief.name", draft.name, NAME_MAX);
  check("brief.problem", draft.problem, TEXT_MAX);
  const filled = draft.features.filter((each) => each.text.trim() !== "");
  const first = draft.features[0];
  if (filled.length === 0 && first !== undefined) mistakes[featureField(first.key)] = words.feature;
  for (const each of filled) check(featureField(each.key), each.text, TEXT_MAX);
  if (filled.length > FEATURES_MAX) mistakes["brief.features"] = words.tooMany(filled.length, FEATURES_MAX);
  const bytes = jsonBytes(briefOf(draft));
  if (bytes > BRIEF_MAX_BYTES) mistakes.brief = words.tooLarge(bytes, BRIEF_MAX_BYTES);
  return mistakes;
}

/** The mistakes in what the build is to do. */
export function buildMistakes(draft: Pick<Draft, "goal" | "nights">, words: MistakeWords): Mistakes {
  const mistakes: Mistakes = {};
  const count = characters(draft.goal.trim());
  if (count === 0) mistakes.goal = words.required;
  else if (count > GOAL_MAX) mistakes.goal = words.tooLong(count, GOAL_MAX);
  if (!/^\d{1,4}$/.test(draft.nights.trim()) || Number(draft.nights) > 1000) mistakes.max_nights = words.nights;
  return mistakes;
}

/** The name of a feature's input. Rows keep theirs while they move. */
export function featureField(key: number): string {
  return `brief.features.${key}`;
}

/**
 * Where to show a mistake that the API names: the step and the name of its input, or the step alone.
 * The API counts the features that were sent, so empty rows are skipped.
 */
export function placeOf(field: string, draft: Draft): { step: StepName; input: string } {
  const feature = /^brief\.features\[(\d+)\]/.exec(field);
  if (feature !== null) {
    const filled = draft.features.filter((each) => each.text.trim() !== "");
    const row = filled[Number(feature[1])] ?? draft.features[0];
    return { step: "idea", input: row === undefined ? "brief" : featureField(row.key) };
  }
  const answer = /^interview\.(?:answers\.(.+?)|questions\[(\d+)\].*)$/.exec(field);
  if (answer !== null) {
    const id = answer[1] ?? draft.questions[Number(answer[2])]?.id ?? "";
    return { step: "interview", input: `interview.answers.${id}` };
  }
  if (field === "name") return { step: "idea", input: "brief.name" };
  const known = ["brief.name", "brief.problem", "brief.audience", "brief.notes"].find((name) => field.startsWith(name));
  if (known !== undefined) return { step: "idea", input: known };
  if (field === "brief" || field.startsWith("brief.")) return { step: "idea", input: "brief" };
  if (field.startsWith("interview")) return { step: "interview", input: "interview" };
  return { step: "review", input: field };
}
