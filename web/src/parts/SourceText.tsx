import { type CSSProperties, memo, useEffect, useMemo, useRef } from "react";
import { panels as panelsWords } from "../words/panels.ts";
import { printable } from "./printable.ts";
import { Scroll } from "./Scroll.tsx";
import style from "./SourceText.module.css";

/** Lines in a block. Blocks that are not in view cost the browser nothing. */
const BLOCK = 200;

/** Characters of a line that are shown. */
const LINE_MOST = 5_000;

interface Props {
  text: string;
  label: string;
  wrap: boolean;
  /** A line to go to, from 1. */
  line?: number | undefined;
}

/** A file's text with the numbers of its lines. */
export const SourceText = memo(function SourceText({ text, label, wrap, line }: Props) {
  const lines = useMemo(() => linesOf(text), [text]);
  const marked = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    if (line !== undefined) marked.current?.scrollIntoView({ block: "center" });
  }, [line]);
  const digits = String(lines.length).length;
  const blocks = Array.from({ length: Math.ceil(lines.length / BLOCK) }, (_, index) => index * BLOCK);
  return (
    <Scroll label={label} className={`${style.text} ${wrap ? style.wrap : ""}`}>
      <code className={style.code} style={{ "--digits": digits } as CSSProperties}>
        {blocks.map((from) => (
          <span key={from} className={style.block}>
            {lines.slice(from, from + BLOCK).map((each, index) => {
              const number = from + index + 1;
              const rest = each.length - LINE_MOST;
              return (
                <span
                  key={number}
                  ref={number === line ? marked : undefined}
                  className={`${style.line} ${number === line ? style.marked : ""}`}
                  data-number={number}
                >
                  {printable(rest > 0 ? each.slice(0, LINE_MOST) : each)}
                  {rest > 0 && <em>{panelsWords.longLine(rest)}</em>}
                  {"\n"}
                </span>
              );
            })}
          </span>
        ))}
      </code>
    </Scroll>
  );
});

/** The lines of a text, without their ends. A last line end begins no line. */
export function linesOf(text: string): string[] {
  const lines = text.split("\n");
  if (lines.length > 1 && lines.at(-1) === "") lines.pop();
  return isCrlf(text) ? lines.map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line)) : lines;
}

/** Whether all lines end with carriage return and line feed. */
export function isCrlf(text: string): boolean {
  return text.includes("\r\n") && !/(^|[^\r])\n/.test(text);
}
