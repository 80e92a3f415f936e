/** The documents among the files of a workspace, those that a reader begins with first. */
export function documentsOf(paths: readonly string[]): string[] {
  return paths
    .filter((path) => rank(path) !== undefined)
    .sort((a, b) => (rank(a) ?? 0) - (rank(b) ?? 0) || a.localeCompare(b));
}

/** 0 for what is read first; undefined for what is no document. */
function rank(path: string): number | undefined {
  if (/^readme(\.(md|markdown|txt))?$/i.test(path)) return 0;
  if (/^plan\.md$/i.test(path)) return 1;
  if (/^(changelog|changes|history)(\.(md|markdown|txt))?$/i.test(path)) return 2;
  if (/^hand-?off[^/]*\.md$/i.test(path)) return 3;
  if (/^[^/]+\.(md|markdown)$/i.test(path)) return 4;
  if (/^docs?\/.+\.(md|markdown)$/i.test(path)) return 5;
  return undefined;
}

/** The path in the workspace to which a link of a document leads; undefined if it leads out of the workspace. */
export function linkedPath(from: string, href: string): string | undefined {
  let path = href.replace(/[?#].*$/, "");
  try {
    path = decodeURIComponent(path);
  } catch {
    // A percent sign that is only a percent sign.
  }
  const parts = path.startsWith("/") ? [] : from.split("/").slice(0, -1);
  for (const part of path.split("/")) {
    if (part === "..") {
      if (parts.pop() === undefined) return undefined;
    } else if (part !== "" && part !== ".") parts.push(part);
  }
  return parts.length === 0 ? undefined : parts.join("/");
}
