/** What a new build begins with: a build that has ended, at one of its snapshots or at its last. */
export interface Start {
  buildId: string;
  snapshot?: number | undefined;
}

const ID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** From `BUILD` or `BUILD:SNAPSHOT`, as addresses and the command line have it; undefined if it is neither. */
export function parseStart(text: string | null): Start | undefined {
  const [buildId = "", number, ...more] = (text ?? "").split(":");
  if (!ID.test(buildId) || more.length > 0) return undefined;
  if (number === undefined) return { buildId };
  const snapshot = Number(number);
  return Number.isSafeInteger(snapshot) && snapshot > 0 ? { buildId, snapshot } : undefined;
}
