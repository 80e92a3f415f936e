/** A line of a diff. `note` is what git says about the line before, such as that no newline ends the file. */
export interface PatchLine {
  kind: "context" | "add" | "del" | "note";
  text: string;
  /** Its number in the old file; undefined for an added line. */
  old: number | undefined;
  /** Its number in the new file; undefined for a deleted line. */
  new: number | undefined;
}

export interface Hunk {
  /** What git found to be around it, such as the function's first line. May be empty. */
  section: string;
  oldStart: number;
  newStart: number;
  lines: PatchLine[];
}

/** A file of a diff. */
export interface FilePatch {
  /** Its path now; of a deleted file, what it was. */
  path: string;
  /** Its path before, if it was renamed or copied. */
  oldPath: string | undefined;
  change: "added" | "deleted" | "renamed" | "copied" | "type" | "changed";
  binary: boolean;
  /** Such as "100644 → 100755", if git says so. */
  mode: string | undefined;
  hunks: Hunk[];
  additions: number;
  deletions: number;
}

const HUNK = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@ ?(.*)$/s;

const ESCAPES: Record<string, number> = { a: 7, b: 8, t: 9, n: 10, v: 11, f: 12, r: 13, '"': 34, "\\": 92 };

/** The path that git writes in quotes if it has a quote, a backslash, a control or another character than ASCII in it. */
export function unquoted(path: string): string {
  if (!path.startsWith('"') || !path.endsWith('"') || path.length < 2) return path;
  const bytes: number[] = [];
  const inner = path.slice(1, -1);
  for (let at = 0; at < inner.length; at += 1) {
    const character = inner.charAt(at);
    if (character !== "\\") {
      bytes.push(...new TextEncoder().encode(String.fromCodePoint(inner.codePointAt(at) ?? 0)));
      if ((inner.codePointAt(at) ?? 0) > 0xffff) at += 1;
      continue;
    }
    const octal = /^[0-7]{3}/.exec(inner.slice(at + 1, at + 4));
    if (octal) {
      bytes.push(Number.parseInt(octal[0], 8) & 0xff);
      at += 3;
    } else {
      bytes.push(ESCAPES[inner.charAt(at + 1)] ?? 92);
      at += 1;
    }
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}

/** The path of a `---` or `+++` line without its `a/` or `b/`; undefined for /dev/null. */
function headerPath(line: string): string | undefined {
  // A tab follows a path with a space in it.
  const path = unquoted(line.slice(4).replace(/\t$/, ""));
  return path === "/dev/null" ? undefined : path.replace(/^[ab]\//, "");
}

/** Both paths of `diff --git a/x b/x`; they are the same unless other lines say so. */
function gitPath(line: string): string {
  const rest = line.slice("diff --git ".length);
  const quoted = /^("(?:[^"\\]|\\.)*") /.exec(rest);
  if (quoted) return unquoted(quoted[1] ?? "").replace(/^a\//, "");
  // `a/` + path + ` b/` + path
  return rest.slice(2, 2 + (rest.length - 5) / 2);
}

function begun(path: string): FilePatch {
  return {
    path,
    oldPath: undefined,
    change: "changed",
    binary: false,
    mode: undefined,
    hunks: [],
    additions: 0,
    deletions: 0,
  };
}

/** The files of a patch as `git diff` writes it. A patch that was cut off ends with what there is of it. */
export function parsePatch(text: string): FilePatch[] {
  const files: FilePatch[] = [];
  let file: FilePatch | undefined;
  let hunk: Hunk | undefined;
  let oldLeft = 0;
  let newLeft = 0;
  let oldAt = 0;
  let newAt = 0;
  let oldMode: string | undefined;
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  for (const line of lines) {
    // The counts of a hunk decide what is its line: a deleted line "-- x" looks like a header.
    if (hunk !== undefined && file !== undefined && (oldLeft > 0 || newLeft > 0 || line.startsWith("\\"))) {
      const sign = line.charAt(0);
      const rest = line.slice(1);
      if (sign === "\\") {
        hunk.lines.push({ kind: "note", text: rest.trimStart(), old: undefined, new: undefined });
      } else if (sign === "+") {
        hunk.lines.push({ kind: "add", text: rest, old: undefined, new: newAt });
        file.additions += 1;
        newLeft -= 1;
        newAt += 1;
      } else if (sign === "-") {
        hunk.lines.push({ kind: "del", text: rest, old: oldAt, new: undefined });
        file.deletions += 1;
        oldLeft -= 1;
        oldAt += 1;
      } else {
        hunk.lines.push({ kind: "context", text: rest, old: oldAt, new: newAt });
        oldLeft -= 1;
        newLeft -= 1;
        oldAt += 1;
        newAt += 1;
      }
      continue;
    }
    hunk = undefined;
    if (line.startsWith("diff --git ")) {
      file = begun(gitPath(line));
      files.push(file);
      continue;
    }
    if (file === undefined) continue;
    const header = HUNK.exec(line);
    if (header) {
      hunk = { section: header[5] ?? "", oldStart: Number(header[1]), newStart: Number(header[3]), lines: [] };
      oldLeft = Number(header[2] ?? 1);
      newLeft = Number(header[4] ?? 1);
      oldAt = hunk.oldStart;
      newAt = hunk.newStart;
      file.hunks.push(hunk);
    } else if (line.startsWith("--- ")) {
      const path = headerPath(line);
      if (path === undefined) file.change = "added";
      else if (file.change !== "renamed" && file.change !== "copied") file.path = path;
    } else if (line.startsWith("+++ ")) {
      const path = headerPath(line);
      if (path === undefined) file.change = "deleted";
      else file.path = path;
    } else if (line.startsWith("new file mode ")) {
      file.change = "added";
    } else if (line.startsWith("deleted file mode ")) {
      file.change = "deleted";
    } else if (line.startsWith("old mode ")) {
      oldMode = line.slice("old mode ".length);
    } else if (line.startsWith("new mode ")) {
      file.mode = `${oldMode} → ${line.slice("new mode ".length)}`;
    } else if (/^(rename|copy) from /.test(line)) {
      file.change = line.startsWith("rename") ? "renamed" : "copied";
      file.oldPath = unquoted(line.replace(/^(rename|copy) from /, ""));
    } else if (/^(rename|copy) to /.test(line)) {
      file.path = unquoted(line.replace(/^(rename|copy) to /, ""));
    } else if (line.startsWith("Binary files ") || line === "GIT binary patch") {
      file.binary = true;
    }
  }
  return files;
}

/**
 * What differs within a line and the one that took its place, for blocks with as many deleted as added lines.
 *
 * @returns start and end of it by the index of the line; lines that have little in common are left out.
 */
export function changedSpans(lines: PatchLine[]): Map<number, [number, number]> {
  const spans = new Map<number, [number, number]>();
  for (let at = 0; at < lines.length; ) {
    const dels = run(lines, at, "del");
    const adds = run(lines, at + dels, "add");
    if (dels > 0 && dels === adds) {
      for (let index = at; index < at + dels; index += 1) {
        const before = lines[index]?.text ?? "";
        const after = lines[index + dels]?.text ?? "";
        const start = commonStart(before, after);
        const end = commonEnd(before, after, start);
        if (start + end < Math.max(before.length, after.length) / 3) continue;
        spans.set(index, [start, before.length - end]);
        spans.set(index + dels, [start, after.length - end]);
      }
    }
    at += Math.max(1, dels + adds);
  }
  return spans;
}

function run(lines: PatchLine[], at: number, kind: PatchLine["kind"]): number {
  let count = 0;
  while (lines[at + count]?.kind === kind) count += 1;
  return count;
}

function commonStart(a: string, b: string): number {
  let at = 0;
  while (at < a.length && at < b.length && a[at] === b[at]) at += 1;
  return at > 0 && isHalf(a, at) ? at - 1 : at;
}

function commonEnd(a: string, b: string, start: number): number {
  let count = 0;
  while (count < a.length - start && count < b.length - start && a[a.length - 1 - count] === b[b.length - 1 - count]) {
    count += 1;
  }
  return count > 0 && isHalf(a, a.length - count) ? count - 1 : count;
}

/** Whether a character of two halves, such as an emoji, would be cut in two here. */
function isHalf(text: string, at: number): boolean {
  const code = text.charCodeAt(at - 1);
  return code >= 0xd800 && code <= 0xdbff;
}
