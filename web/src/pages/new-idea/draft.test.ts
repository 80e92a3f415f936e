import assert from "node:assert/strict";
import { test } from "node:test";
import {
  briefOf,
  buildMistakes,
  type Draft,
  emptyDraft,
  featuresOf,
  hasContent,
  ideaMistakes,
  interviewOf,
  type MistakeWords,
  moved,
  newQuestionId,
  parseDraft,
  placeOf,
  sameJson,
  withBrief,
} from "./draft.ts";

const EMPTY = emptyDraft("Build the first version", () => "a key");
const WORDS: MistakeWords = {
  required: "required",
  feature: "feature",
  tooLong: (count, most) => `${count}/${most}`,
  tooMany: (count, most) => `${count}/${most}`,
  nights: "nights",
  tooLarge: () => "large",
};

function draft(change: Partial<Draft> = {}): Draft {
  return { ...EMPTY, name: "Tool Library", problem: "Tools are dear.", features: featuresOf(["Lend"]), ...change };
}

test("keeps the fields of a brief that have no input, as they came", () => {
  const brief = {
    name: "A",
    problem: "B",
    features: ["C"],
    audience: { age: [20, 40] },
    notes: "D",
    colour: "green",
    stack: null,
  };
  const next = withBrief(EMPTY, brief);
  assert.equal(next.notes, "D");
  assert.deepEqual(next.more, { audience: { age: [20, 40] }, colour: "green", stack: null });
  assert.ok(sameJson(briefOf(next), brief));
});

test("does not let a field of a wrong type stand in for its input", () => {
  const next = withBrief(EMPTY, { name: 3, features: [{ title: "x" }], problem: "p" });
  assert.deepEqual(next.more, {});
  assert.deepEqual(Object.keys(ideaMistakes(next, WORDS)), ["brief.name", "brief.features.1"]);
});

test("leaves empty rows, answers and optional fields out", () => {
  const features = featuresOf(["", " Lend ", ""]);
  assert.deepEqual(briefOf(draft({ features, audience: " " })), {
    name: "Tool Library",
    problem: "Tools are dear.",
    features: ["Lend"],
  });
  const questions = [
    { id: "one", text: "One?" },
    { id: "two", text: "Two?" },
  ];
  const interview = interviewOf(draft({ questions, answers: { one: " yes ", two: " ", gone: "x" } }));
  assert.deepEqual(interview, { questions, answers: { one: "yes" } });
});

test("finds what the API would refuse", () => {
  assert.deepEqual(ideaMistakes(draft(), WORDS), {});
  assert.deepEqual(ideaMistakes(EMPTY, WORDS), {
    "brief.name": "required",
    "brief.problem": "required",
    "brief.features.1": "feature",
  });
  assert.deepEqual(ideaMistakes(draft({ name: "👩".repeat(121) }), WORDS), { "brief.name": "121/120" });
  assert.deepEqual(ideaMistakes(draft({ features: featuresOf(Array(51).fill("x")) }), WORDS), {
    "brief.features": "51/50",
  });
  assert.deepEqual(ideaMistakes(draft({ more: { long: "x".repeat(70_000) } }), WORDS), { brief: "large" });
  assert.deepEqual(buildMistakes(draft(), WORDS), {});
  assert.deepEqual(buildMistakes(draft({ goal: " ", nights: "many" }), WORDS), {
    goal: "required",
    max_nights: "nights",
  });
});

test("finds the input of a mistake that the API names", () => {
  const features = [
    { key: 4, text: "" },
    { key: 7, text: "first" },
    { key: 2, text: "second" },
  ];
  const questions = [{ id: "today", text: "Today?" }];
  const place = (field: string) => placeOf(field, draft({ features, questions }));
  assert.deepEqual(place("brief.features[1]"), { step: "idea", input: "brief.features.2" });
  assert.deepEqual(place("brief.name"), { step: "idea", input: "brief.name" });
  assert.deepEqual(place("name"), { step: "idea", input: "brief.name" });
  assert.deepEqual(place("brief.colour key"), { step: "idea", input: "brief" });
  assert.deepEqual(place("interview.answers.today"), { step: "interview", input: "interview.answers.today" });
  assert.deepEqual(place("interview.questions[0].text"), { step: "interview", input: "interview.answers.today" });
  assert.deepEqual(place("max_nights"), { step: "review", input: "max_nights" });
});

test("takes a kept draft of any age, and nothing that is not one", () => {
  assert.deepEqual(parseDraft(JSON.stringify(draft()), EMPTY), draft());
  const old = parseDraft(
    '{"name": "x", "features": [null, {"key": 1, "text": "y"}], "answers": {"a": 1}, "goal": 5}',
    EMPTY,
  );
  assert.deepEqual(old, { ...EMPTY, name: "x", features: [{ key: 1, text: "y" }] });
  const asked = { ...EMPTY, questions: [{ id: "one", text: "One?" }] };
  assert.deepEqual(parseDraft(JSON.stringify(EMPTY), asked), asked);
  for (const text of ["", "null", "[]", "7", "{"]) assert.equal(parseDraft(text, EMPTY), undefined);
});

test("knows what would be lost", () => {
  assert.equal(hasContent(EMPTY), false);
  assert.equal(hasContent({ ...EMPTY, answers: { a: "b" } }), true);
});

test("moves rows within the list only, and finds free ids", () => {
  assert.deepEqual(moved(["a", "b", "c"], 2, -1), ["a", "c", "b"]);
  const list = ["a", "b"];
  assert.equal(moved(list, 0, -1), list);
  assert.equal(newQuestionId([{ id: "own_1", text: "" }]), "own_2");
});

test("compares JSON without the order of its fields", () => {
  assert.ok(sameJson({ a: 1, b: [{ c: 2, d: 3 }] }, { b: [{ d: 3, c: 2 }], a: 1 }));
  assert.ok(!sameJson({ a: [1, 2] }, { a: [2, 1] }));
  assert.ok(!sameJson(null, { a: 1 }));
});
