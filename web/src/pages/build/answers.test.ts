import assert from "node:assert/strict";
import { test } from "node:test";
import { OwnAnswers } from "./answers.ts";

test("an answer whose response was lost is one's own, another one is not", () => {
  const answers = new OwnAnswers();
  answers.send("one", "Use SQLite");
  assert(answers.isOwn("one", "Use SQLite"));
  assert(!answers.isOwn("one", "Use PostgreSQL"));
  assert(!answers.isOwn("one", null));
  assert(!answers.isOwn("two", "Use SQLite"));
});

test("a stored answer is one's own, whatever is left out of its text", () => {
  const answers = new OwnAnswers();
  answers.send("one", "The key is abc");
  answers.store("one");
  assert(answers.isOwn("one", "The key is [removed]"));
  assert(answers.isOwn("one", null));
});
