/** The stored feeds of tests/golden/feeds. For tests only. */

import { readdirSync, readFileSync } from "node:fs";
import { readEvent, type SentEvent } from "./events.ts";

const FEEDS = new URL("../../../tests/golden/feeds/", import.meta.url);

export function readStored(name: string): string {
  return readFileSync(new URL(name, FEEDS), "utf8");
}

export function storedEvents(name: string) {
  const lines = readStored(`${name}.jsonl`).split("\n").filter(Boolean);
  return lines.map((line) => readEvent(JSON.parse(line) as SentEvent));
}

export const STORED_FEEDS = readdirSync(FEEDS)
  .filter((name) => name.endsWith(".jsonl"))
  .map((name) => name.slice(0, -".jsonl".length));
