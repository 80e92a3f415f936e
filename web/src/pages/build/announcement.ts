/** How often a screen reader is told something, at most, in milliseconds. */
export const QUIET_MS = 5_000;

/** Milliseconds to wait until the next announcement, after one at `last`. */
export function waitFor(last: number, now: number): number {
  return Math.max(0, last + QUIET_MS - now);
}
