// What the API's rules say about a brief and an interview (domain/brief.py), without React and without the DOM.

/** A JSON object. */
export type Json = Record<string, unknown>;

export const BRIEF_MAX_BYTES = 64 * 1024;
export const INTERVIEW_MAX_BYTES = 128 * 1024;
export const NAME_MAX = 120;
export const TEXT_MAX = 10_000;
export const GOAL_MAX = 20_000;
export const FEATURES_MAX = 50;
export const QUESTIONS_MAX = 200;

const SKIPPED = new Set(["a", "an", "the", "for", "of", "to", "and", "that", "with", "my", "in", "on"]);

/** A brief from one sentence: the rule of `brief_from_idea` in domain/brief.py; tests/golden/ideas.json has both. */
export function briefFromIdea(idea: string): { name: string; problem: string; features: string[] } {
  const sentence = idea.trim().split(/\s+/u).join(" ");
  const words = sentence.match(/[\p{L}\p{N}]+/gu) ?? [];
  let title = words.filter((word) => !SKIPPED.has(word.toLowerCase())).slice(0, 2);
  if (title.length === 0) title = ["My", "Product"];
  const name = title.map((word) => capitalized(word)).join(" ");
  return { name: [...name].slice(0, NAME_MAX).join(""), problem: sentence, features: [sentence] };
}

function capitalized(word: string): string {
  const [first = "", ...rest] = [...word];
  return first.toUpperCase() + rest.join("").toLowerCase();
}

/** The size of a value as the API counts it: JSON in UTF-8, with a space after each comma and colon. */
export function jsonBytes(value: unknown): number {
  return new TextEncoder().encode(spaced(value)).length;
}

function spaced(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(spaced).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    return `{${Object.entries(value)
      .map(([name, item]) => `${JSON.stringify(name)}: ${spaced(item)}`)
      .join(", ")}}`;
  }
  return JSON.stringify(value) ?? "null";
}

/** How many characters the API counts: code points. */
export function characters(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
