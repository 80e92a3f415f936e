import { useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, type ReactNode, Suspense, useEffect, useState } from "react";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { keepNewest } from "../../api/keepNewest.ts";
import { keys } from "../../api/queries.ts";
import type { callState } from "../../feed/rows.ts";
import { Button } from "../../parts/Button.tsx";
import { Copy } from "../../parts/Copy.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { printable, printableLine } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { feed as feedWords } from "../../words/feed.ts";
import style from "./ToolCall.module.css";

const EditDiff = lazy(() => import("./EditDiff.tsx"));

const text = feedWords.tool;

/** Lines of a text that are shown before one asks for all. */
const LINES = 24;
/** Characters of a text that are shown before one asks for all. */
const CHARACTERS = 6000;

/** Calls that are closed and kept, so that opening them again asks nothing. Each may be some 100 kB. */
const CLOSED_KEPT = 24;

type ToolCallOut = Schemas["ToolCallOut"];

interface Props {
  build: string;
  id: string;
  state: ReturnType<typeof callState>;
  onFile?: (path: string) => void;
}

/** The input and the result of a tool call, each tool in its own way. Loaded when it is opened; the last ones stay. */
export default function ToolCall({ build, id, state, onFile }: Props) {
  const isDone = state === "done" || state === "failed";
  const client = useQueryClient();
  useEffect(() => keepNewest(client, keys.ofBuild(build, "tool-calls"), CLOSED_KEPT), [client, build]);
  const call = useQuery({
    queryKey: keys.ofBuild(build, "tool-calls", id, isDone),
    queryFn: () =>
      dataOf(
        api.GET("/v1/builds/{build_id}/tool-calls/{tool_use_id}", {
          params: { path: { build_id: build, tool_use_id: id } },
        }),
      ),
    staleTime: isDone ? Number.POSITIVE_INFINITY : 1000,
  });
  if (call.error !== null) return <Failure error={call.error} retry={() => void call.refetch()} />;
  if (call.data === undefined) return <Skeleton />;
  return (
    <div className={style.tool} data-call={id} data-state={state}>
      <Input call={call.data} onFile={onFile} />
      <Result call={call.data} state={state} />
    </div>
  );
}

/** A field of an input if it is a text, else undefined. */
function field(call: ToolCallOut, name: string): string | undefined {
  const value = call.input[name];
  return typeof value === "string" ? value : undefined;
}

function Input({ call, onFile }: { call: ToolCallOut; onFile?: (path: string) => void }) {
  const path = field(call, "file_path");
  switch (call.name) {
    case "bash": {
      const command = field(call, "command");
      const timeout = call.input.timeout_ms;
      if (command === undefined) break;
      return (
        <Part title={text.command} note={typeof timeout === "number" && text.timeout(timeout / 1000)} copy={command}>
          <Output value={command} />
        </Part>
      );
    }
    case "read_file":
      if (path === undefined) break;
      return <Path path={path} range={call.input.view_range} onFile={onFile} />;
    case "write_file": {
      const content = field(call, "content");
      if (path === undefined || content === undefined) break;
      return (
        <>
          <Path path={path} onFile={onFile} />
          <Part title={text.newContent} copy={content}>
            <Output value={content} />
          </Part>
        </>
      );
    }
    case "edit_file": {
      const [before, after] = [field(call, "old_string"), field(call, "new_string")];
      if (path === undefined || before === undefined || after === undefined) break;
      return (
        <>
          <Path path={path} onFile={onFile} />
          <Part title={text.change} note={call.input.replace_all === true && text.everyPlace}>
            <Suspense fallback={<Skeleton />}>
              <EditDiff before={before} after={after} />
            </Suspense>
          </Part>
        </>
      );
    }
    case "glob":
    case "grep": {
      const pattern = field(call, "pattern");
      if (pattern === undefined) break;
      const where = [field(call, "path"), field(call, "glob")].filter((each) => each !== undefined).join(" ");
      return (
        <Part title={text.pattern} note={where}>
          <Output value={pattern} />
        </Part>
      );
    }
    case "take_screenshot":
    case "look": {
      const page = field(call, "path");
      if (page === undefined) break;
      const steps = Array.isArray(call.input.steps) ? call.input.steps : [];
      return (
        <>
          <Part title={text.page} note={field(call, "viewport")}>
            <Output value={page} />
          </Part>
          {steps.length > 0 && (
            <Part title={text.steps}>
              <Output value={steps.map((step) => JSON.stringify(step)).join("\n")} />
            </Part>
          )}
        </>
      );
    }
    case "ask_founder": {
      const question = field(call, "question");
      if (question === undefined) break;
      return (
        <Part title={text.question}>
          <Output value={question} />
        </Part>
      );
    }
  }
  return (
    <Part title={text.input}>
      <Output value={JSON.stringify(call.input, null, 2)} />
    </Part>
  );
}

/** A part of a call with its heading. */
function Part({
  title,
  note,
  copy,
  children,
}: {
  title: string;
  note?: ReactNode;
  copy?: string;
  children: ReactNode;
}) {
  return (
    <section className={style.part} aria-label={title}>
      <div className={style.head}>
        <h4>{title}</h4>
        {note && <span className={style.note}>{typeof note === "string" ? printable(note) : note}</span>}
        {copy !== undefined && <Copy text={copy} />}
      </div>
      {children}
    </section>
  );
}

function Path({ path, range, onFile }: { path: string; range?: unknown; onFile?: (path: string) => void }) {
  const lines = Array.isArray(range) && range.length === 2 ? `${range[0]}-${range[1] === 0 ? "" : range[1]}` : "";
  return (
    <p className={style.path}>
      <Icon name="file" size={14} />
      <bdi>
        <code>{printableLine(path)}</code>
      </bdi>
      {lines !== "" && <span className={style.note}>{lines}</span>}
      <Copy text={path} label={text.copyPath} />
      {onFile !== undefined && (
        <Button small kind="quiet" onClick={() => onFile(path)}>
          {text.openFile}
        </Button>
      )}
    </p>
  );
}

/** A text as it is: its first lines, and all of it on demand. Gaps that the API has left are marked. */
function Output({ value }: { value: string }) {
  const [isWhole, setWhole] = useState(false);
  const lines = value.split("\n");
  const isLong = lines.length > LINES || value.length > CHARACTERS;
  const shown = isWhole || !isLong ? value : lines.slice(0, LINES).join("\n").slice(0, CHARACTERS);
  return (
    <>
      <pre className={`${style.output} ${isWhole ? style.whole : ""}`}>{withGaps(printable(shown))}</pre>
      {isLong && (
        <Button small kind="quiet" aria-expanded={isWhole} onClick={() => setWhole(!isWhole)}>
          {isWhole ? text.showLess : text.showAll(lines.length)}
        </Button>
      )}
    </>
  );
}

const GAP = /^(\[… .* left out.*…\])$/m;

function withGaps(value: string): ReactNode {
  const parts = value.split(GAP);
  if (parts.length === 1) return value;
  return parts.map((part, index) => {
    // Every second part is a gap, because the pattern has one group.
    return index % 2 === 1 ? (
      <span key={index} className={style.gap}>
        {part}
      </span>
    ) : (
      part
    );
  });
}

/** What ends the output of a command that has not ended well. */
const ENDING = /\n?\[(?:exit code (-?\d+)|(timed out) after [^\]]*)\]$/;

function Result({ call, state }: { call: ToolCallOut; state: Props["state"] }) {
  if (call.result === null) {
    return <p className={style.note}>{state === "lost" ? text.noResult : text.running}</p>;
  }
  const texts: string[] = [];
  const images: { sha256: string; path: string }[] = [];
  for (const part of call.result) {
    if (part.type === "image") images.push(part);
    else texts.push(part.text);
  }
  const whole = texts.join("\n");
  const ending = call.name === "bash" ? ENDING.exec(whole) : null;
  const output = ending === null ? whole : whole.slice(0, ending.index);
  const chip = ending === null ? null : ending[2] === undefined ? text.exitCode(ending[1] ?? "") : text.timedOut;
  return (
    <>
      {call.lost && <p className={style.lost}>{text.lost}</p>}
      {images.length > 0 && (
        <Part title={text.pictures}>
          <div className={style.images}>
            {images.map((image, index) => (
              <Picture key={image.sha256} path={image.path} label={text.picture(index + 1)} />
            ))}
          </div>
        </Part>
      )}
      {(output !== "" || chip !== null) && (
        <Part
          title={call.name === "bash" ? text.output : text.result}
          note={chip !== null && <span className={style.chip}>{chip}</span>}
          copy={output}
        >
          {output === "(no output)" ? <p className={style.note}>{text.noOutput}</p> : <Output value={output} />}
        </Part>
      )}
    </>
  );
}

/** A picture from the API, larger in a dialog. */
function Picture({ path, label }: { path: string; label: string }) {
  const [isGone, setGone] = useState(false);
  const [isLarge, setLarge] = useState(false);
  if (isGone) return <p className={style.gone}>{text.pictureGone}</p>;
  return (
    <>
      <button type="button" className={style.picture} onClick={() => setLarge(true)}>
        <img src={path} alt={label} loading="lazy" onError={() => setGone(true)} />
      </button>
      {isLarge && (
        <Dialog title={label} wide onClose={() => setLarge(false)}>
          <img src={path} alt={label} />
        </Dialog>
      )}
    </>
  );
}
