// The tiles above the fleet's list: which builds each counts, and the filter that shows them. No React, no DOM.
import type { Schemas } from "../../api/client.ts";
import { type Filter, readFilter } from "./filter.ts";

type Group = Pick<Schemas["BuildGroupOut"], "status" | "waiting_for" | "dependency" | "count">;

const WORKING = ["starting", "scaffold", "code", "checks"];
/** Of the reasons to wait for a person, those that only operators can end. */
const FOR_OPERATORS = ["operator", "store", "kill_switch"];

export const TILES = ["working", "sleeping", "founder", "operator", "waiting", "queued", "failed"] as const;
export type Tile = (typeof TILES)[number];

const SEARCHES: Record<Tile, string> = {
  working: new URLSearchParams(WORKING.map((status) => ["status", status])).toString(),
  sleeping: "status=sleeping",
  founder: "status=needs_input&waiting_for=founder",
  operator: `status=needs_input&${new URLSearchParams(FOR_OPERATORS.map((who) => ["waiting_for", who]))}`,
  waiting: "status=waiting",
  queued: "status=queued",
  failed: "status=failed&shown=today&sort=-since",
};

/** The filter that shows the builds of a tile. */
export function filterOf(tile: Tile): Filter {
  return readFilter(SEARCHES[tile]);
}

/** How many builds each tile stands for: those that are open, and those that failed today. */
export function counts(groups: readonly Group[]): Record<Tile, number> {
  const found = Object.fromEntries(TILES.map((tile) => [tile, 0])) as Record<Tile, number>;
  for (const group of groups) {
    const tile = tileOf(group);
    if (tile !== undefined) found[tile] += group.count;
  }
  return found;
}

function tileOf({ status, waiting_for: who }: Group): Tile | undefined {
  if (WORKING.includes(status)) return "working";
  if (status === "needs_input") return who !== null && FOR_OPERATORS.includes(who) ? "operator" : "founder";
  return status === "sleeping" || status === "waiting" || status === "queued" || status === "failed"
    ? status
    : undefined;
}
