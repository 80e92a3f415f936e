import type { Schemas } from "../../api/client.ts";

type Tokens = Pick<
  Schemas["DayUsage"],
  "input_tokens" | "cache_write_5m_tokens" | "cache_write_1h_tokens" | "cache_read_tokens" | "output_tokens"
>;

/** All tokens of some calls: what went in, cached or not, and what came out. */
export function allTokens(usage: Tokens): number {
  return inputTokens(usage) + usage.cache_read_tokens + usage.output_tokens;
}

/** Tokens that the model read at full price or wrote to its cache. */
export function inputTokens(usage: Tokens): number {
  return usage.input_tokens + usage.cache_write_5m_tokens + usage.cache_write_1h_tokens;
}

export interface DaySum {
  day: string;
  tokens: number;
  /** Of the day's allowance; undefined where none is known. */
  percent: number | undefined;
}

/** One sum for each day from `from` to `to`, days without calls included. */
export function sumsByDay(days: readonly Schemas["DayUsage"][], from: string, to: string): DaySum[] {
  const sums = new Map<string, DaySum>();
  for (let at = Date.parse(from); at <= Date.parse(to); at += 86_400_000) {
    const day = new Date(at).toISOString().slice(0, 10);
    sums.set(day, { day, tokens: 0, percent: undefined });
  }
  for (const usage of days) {
    const sum = sums.get(usage.day);
    if (sum === undefined) continue;
    sum.tokens += allTokens(usage);
    if (usage.percent !== null && usage.percent !== undefined) sum.percent = (sum.percent ?? 0) + usage.percent;
  }
  return [...sums.values()];
}
