import { diffLines, diffWordsWithSpace } from "diff";
import type { ReactNode } from "react";
import { printable } from "../../parts/printable.ts";
import style from "./ToolCall.module.css";

/** Edits that a comparison may take; beyond, all of the text counts as changed. */
const EDITS = 2000;
/** Words are compared in changes of up to so many characters. */
const WORDS = 4000;

interface Line {
  readonly sign: "+" | "-" | " ";
  readonly content: ReactNode;
}

function linesOf(value: string): string[] {
  return printable(value.endsWith("\n") ? value.slice(0, -1) : value).split("\n");
}

/** The lines of a text whose changed words are marked; `parts` are its words in order. */
function marked(sign: "+" | "-", parts: readonly { value: string; isChanged: boolean }[]): Line[] {
  const lines: ReactNode[][] = [[]];
  parts.forEach(({ value, isChanged }, number) => {
    printable(value)
      .split("\n")
      .forEach((piece, index) => {
        if (index > 0) lines.push([]);
        if (piece !== "") lines.at(-1)?.push(isChanged ? <mark key={`${number}-${index}`}>{piece}</mark> : piece);
      });
  });
  if (lines.at(-1)?.length === 0) lines.pop();
  return lines.map((content) => ({ sign, content }));
}

function changedLines(removed: string, added: string): Line[] {
  if (removed.length + added.length > WORDS) {
    return [
      ...linesOf(removed).map((content) => ({ sign: "-" as const, content })),
      ...linesOf(added).map((content) => ({ sign: "+" as const, content })),
    ];
  }
  const parts = diffWordsWithSpace(removed, added);
  const of = (side: "removed" | "added") =>
    parts
      .filter((part) => part[side] || !(part.added || part.removed))
      .map((part) => ({ value: part.value, isChanged: part[side] === true }));
  return [...marked("-", of("removed")), ...marked("+", of("added"))];
}

function diff(before: string, after: string): Line[] {
  const parts = diffLines(before, after, { maxEditLength: EDITS });
  if (parts === undefined) return changedLines(before, after);
  const lines: Line[] = [];
  for (let index = 0; index < parts.length; index++) {
    const part = parts[index];
    const next = parts[index + 1];
    if (part === undefined) continue;
    if (part.removed && next?.added) {
      lines.push(...changedLines(part.value, next.value));
      index += 1;
    } else {
      const sign = part.added ? "+" : part.removed ? "-" : " ";
      lines.push(...linesOf(part.value).map((content) => ({ sign, content }) as const));
    }
  }
  return lines;
}

const LOOK = { "+": style.added, "-": style.removed, " ": "" };

/** A change of a text, line by line, with marks at the words that differ. */
export default function EditDiff({ before, after }: { before: string; after: string }) {
  return (
    <pre className={`${style.output} ${style.whole} ${style.diff}`}>
      {diff(before, after).map(({ sign, content }, index) => (
        <span key={index} className={LOOK[sign]}>
          {sign} {content}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}
