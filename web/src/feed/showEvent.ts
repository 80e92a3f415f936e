/** The address of an event within its build's page is `#e` and its id. */

/** The event that the address names; null if it names none. */
export function eventInHash(hash: string): number | null {
  const found = /^#e(\d{1,15})$/.exec(hash);
  return found === null ? null : Number(found[1]);
}

/** Show an event of the build in its feed, and name it in the address. */
export function showEvent(id: number): void {
  history.replaceState(history.state, "", `${location.pathname}${location.search}#e${id}`);
  dispatchEvent(new HashChangeEvent("hashchange"));
}
