/**
 * The address of a preview if it may be shown in a frame and linked to, else undefined.
 *
 * @param sources where this installation serves previews, such as `http://*.localhost:8000`: `*` is the host's first label.
 */
export function previewAddress(address: string, sources: readonly string[]): URL | undefined {
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    return undefined;
  }
  const label = url.host.slice(0, url.host.indexOf("."));
  const isOurs =
    label !== "" && sources.some((source) => source === `${url.protocol}//*${url.host.slice(label.length)}`);
  return isOurs && url.username === "" && url.password === "" ? url : undefined;
}

/** The address of a path in the product. A path that would lead to another host is one of this host. */
export function inProduct(origin: string, path: string): string {
  const clean = `/${path.trim().replace(/^[/\\]+/, "")}`;
  const url = new URL(clean, origin);
  return url.origin === origin ? url.href : `${origin}/`;
}
