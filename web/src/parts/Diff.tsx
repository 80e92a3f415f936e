import { type CSSProperties, memo, useMemo, useState } from "react";
import { panels as panelsWords } from "../words/panels.ts";
import { Button } from "./Button.tsx";
import { Copy } from "./Copy.tsx";
import style from "./Diff.module.css";
import { changedSpans, type FilePatch, type Hunk, type PatchLine } from "./patch.ts";
import { printable, printableLine } from "./printable.ts";
import { Scroll } from "./Scroll.tsx";

/** Lines of a file that are shown at once; of a longer one only if asked for. */
const LINES_SHOWN = 400;

/** Characters of a line that are shown. A longer one is a file that no person reads line by line. */
const LINE_MOST = 2_000;

const SIGN: Record<PatchLine["kind"], string> = { context: " ", add: "+", del: "-", note: "\\" };

interface Props {
  file: FilePatch;
  /** Wrap long lines instead of scrolling sideways. */
  wrap?: boolean;
  /** Whether the server has left out lines at the end, or all of them, as there are too many. */
  isCut?: boolean;
  /** The id of the file's heading, to go to it. */
  id?: string;
}

/** The changes of a file as a unified diff. All of it is text; a sign and a colour say what is added and what is gone. */
export const Diff = memo(function Diff({ file, wrap = false, isCut = false, id }: Props) {
  const count = useMemo(() => file.hunks.reduce((sum, hunk) => sum + hunk.lines.length, 0), [file]);
  const [isOpen, setOpen] = useState(count <= LINES_SHOWN);
  const w = panelsWords.diff;
  return (
    <section className={style.file} aria-labelledby={id}>
      <div className={style.head}>
        <h3 className={style.path} id={id} tabIndex={-1}>
          {file.oldPath !== undefined && `${printableLine(file.oldPath)} → `}
          <bdi>{printableLine(file.path)}</bdi>
        </h3>
        <span className={style.facts}>
          {w.change[file.change]}
          {file.mode !== undefined && <span>{w.mode(file.mode)}</span>}
          <Extent file={file} />
        </span>
        <Copy text={file.path} label={w.copyPath} />
      </div>
      {file.binary ? (
        <p className={style.message}>{w.binary}</p>
      ) : count === 0 ? (
        <p className={style.message}>{isCut ? w.leftOut : w.noLines}</p>
      ) : isOpen ? (
        <>
          <Lines file={file} wrap={wrap} />
          {isCut && <p className={style.message}>{w.cut}</p>}
        </>
      ) : (
        <p className={style.message}>
          {w.long(count)}
          <Button small onClick={() => setOpen(true)}>
            {w.showLines}
          </Button>
        </p>
      )}
    </section>
  );
});

/** How much of a file has changed. */
export function Extent({ file }: { file: FilePatch }) {
  if (file.binary) return <span className={style.facts}>{panelsWords.diff.isBinary}</span>;
  return <Count additions={file.additions} deletions={file.deletions} />;
}

/** Lines added and deleted. */
export function Count({ additions, deletions }: { additions: number; deletions: number }) {
  return (
    <span className={style.facts}>
      <span className={style.plus}>+{additions}</span>
      <span className={style.minus}>−{deletions}</span>
    </span>
  );
}

function Lines({ file, wrap }: { file: FilePatch; wrap: boolean }) {
  const digits = useMemo(() => {
    const last = file.hunks.at(-1)?.lines.at(-1);
    return String(Math.max(last?.old ?? 0, last?.new ?? 0, 99)).length;
  }, [file]);
  return (
    <Scroll label={panelsWords.diff.lines} className={`${style.body} ${wrap ? style.wrap : ""}`}>
      <div className={style.rows} style={{ "--digits": digits } as CSSProperties}>
        {file.hunks.map((hunk, index) => (
          <HunkLines key={index} hunk={hunk} digits={digits} />
        ))}
      </div>
    </Scroll>
  );
}

function HunkLines({ hunk, digits }: { hunk: Hunk; digits: number }) {
  const spans = useMemo(() => changedSpans(hunk.lines), [hunk]);
  return (
    <>
      <div className={style.section}>
        {panelsWords.diff.section(hunk.oldStart, hunk.newStart)} {printable(hunk.section)}
      </div>
      {hunk.lines.map((line, index) => {
        const numbers = `${pad(line.old, digits)} ${pad(line.new, digits)}`;
        return (
          <span key={index} className={`${style.line} ${style[line.kind] ?? ""}`} data-numbers={numbers}>
            {SIGN[line.kind]}
            <LineText text={line.text} span={spans.get(index)} />
            {"\n"}
          </span>
        );
      })}
    </>
  );
}

function LineText({ text, span }: { text: string; span: [number, number] | undefined }) {
  const cut = text.length > LINE_MOST ? text.slice(0, LINE_MOST) : text;
  const rest = text.length - cut.length;
  return (
    <>
      {span === undefined || rest > 0 ? (
        printable(cut)
      ) : (
        <>
          {printable(text.slice(0, span[0]))}
          <span className={style.changed}>{printable(text.slice(span[0], span[1]))}</span>
          {printable(text.slice(span[1]))}
        </>
      )}
      {rest > 0 && <em>{panelsWords.longLine(rest)}</em>}
    </>
  );
}

function pad(number: number | undefined, digits: number): string {
  return (number === undefined ? "" : String(number)).padStart(digits);
}
