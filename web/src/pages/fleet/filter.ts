// Which builds of all users are shown, and in which order: what the page's address says, and what the API is asked.
// No React, no DOM.
import type { operations } from "../../api/schema.d.ts";

export type FleetQuery = NonNullable<operations["listFleetBuilds"]["parameters"]["query"]>;

const LISTS = ["status", "waiting_for", "dependency", "plan", "model", "user", "version"] as const;
const DEFAULT_SORT = "-created_at";

type ListName = (typeof LISTS)[number];

/** What of the address is not about builds stays out of it. */
export interface Filter {
  readonly lists: Readonly<Partial<Record<ListName, readonly string[]>>>;
  readonly olderThanSeconds: number | undefined;
  /**
   * `open` unless the address says else: ended builds are many, and rarely what an operator looks for. `today`: ended
   * on the UTC day on which it is read.
   */
  readonly shown: "open" | "ended" | "today" | "all";
  readonly sort: string;
}

/** The filter in the query of an address. */
export function readFilter(search: string): Filter {
  const parameters = new URLSearchParams(search);
  const lists: Partial<Record<ListName, string[]>> = {};
  for (const name of LISTS) {
    const values = [...new Set(parameters.getAll(name).filter((value) => value !== ""))];
    if (values.length > 0) lists[name] = values;
  }
  const seconds = Number(parameters.get("older_than_seconds") ?? Number.NaN);
  const shown = parameters.get("shown");
  return {
    lists,
    olderThanSeconds: Number.isInteger(seconds) && seconds >= 0 ? seconds : undefined,
    shown: shown === "ended" || shown === "today" || shown === "all" ? shown : "open",
    sort: parameters.get("sort") ?? DEFAULT_SORT,
  };
}

/** The query of the address with this filter; empty for all open builds, the newest first. */
export function writeFilter(filter: Filter): string {
  const parameters = new URLSearchParams();
  for (const name of LISTS) for (const value of filter.lists[name] ?? []) parameters.append(name, value);
  if (filter.olderThanSeconds !== undefined) parameters.set("older_than_seconds", String(filter.olderThanSeconds));
  if (filter.shown !== "open") parameters.set("shown", filter.shown);
  if (filter.sort !== DEFAULT_SORT) parameters.set("sort", filter.sort);
  return parameters.toString();
}

/** What the API is asked. Values that it does not know are refused by it, with those that it does. */
export function apiQuery(filter: Filter, now = new Date()): FleetQuery {
  const query: Record<string, unknown> = { sort: filter.sort, ...filter.lists };
  if (filter.olderThanSeconds !== undefined) query.older_than_seconds = filter.olderThanSeconds;
  if (filter.shown === "today") query.closed_since = now.toISOString().slice(0, 10);
  if (filter.shown !== "all") query.open = filter.shown === "open";
  return query as FleetQuery;
}

/** The filter with other values of a list; without it if there are none. */
export function withList(filter: Filter, name: ListName, values: readonly string[]): Filter {
  const { [name]: _, ...others } = filter.lists;
  return { ...filter, lists: values.length > 0 ? { ...others, [name]: values } : others };
}

/** Whether both show the same builds, in whatever order. */
export function showsTheSame(one: Filter, other: Filter): boolean {
  return writeFilter({ ...one, sort: DEFAULT_SORT }) === writeFilter({ ...other, sort: DEFAULT_SORT });
}

/** The order after a press on a column: by it with the highest first, then the other way round. */
export function nextSort(sort: string, key: string): string {
  return sort === `-${key}` ? key : `-${key}`;
}

/** How a column is sorted, in the words of `aria-sort`. */
export function sortOf(sort: string, key: string): "ascending" | "descending" | "none" {
  return sort === key ? "ascending" : sort === `-${key}` ? "descending" : "none";
}

/** The filter of some builds by their ids, as text for `where`. */
export function whereOf(ids: readonly string[]): string {
  return `id=${ids.join(",")}`;
}
