import type { Live } from "./stream.ts";

/** A feed that is connected and has fewer events than this to come counts as live. */
export const BEHIND = 50;

export interface Behind {
  /** The last event that is here, and the last that there is. */
  readonly last: number;
  readonly newest: number;
}

/** How far a connected feed has come with what happened while it was not; null if it is not behind. */
export function catchingUp(live: Live, last: number, newest: number): Behind | null {
  return live.kind === "live" && last > 0 && newest - last >= BEHIND ? { last, newest } : null;
}
