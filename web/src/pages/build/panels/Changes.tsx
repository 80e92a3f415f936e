import { useEffect, useId, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { useSearchParams } from "wouter";
import { Problem, type Schemas } from "../../../api/client.ts";
import { Button } from "../../../parts/Button.tsx";
import { Count, Diff, Extent } from "../../../parts/Diff.tsx";
import { Failure } from "../../../parts/Failure.tsx";
import { FileList } from "../../../parts/FileList.tsx";
import { Icon } from "../../../parts/Icon.tsx";
import { Notice } from "../../../parts/Notice.tsx";
import { type FilePatch, parsePatch } from "../../../parts/patch.ts";
import { printable } from "../../../parts/printable.ts";
import { Skeleton } from "../../../parts/Skeleton.tsx";
import { isEnded } from "../../../parts/Status.tsx";
import { panels as panelsWords } from "../../../words/panels.ts";
import style from "./Changes.module.css";
import { Empty } from "./Empty.tsx";
import type { PanelProps } from "./Panels.tsx";
import { type DiffData, useDiff, usePhases } from "./queries.ts";
import { useWrap } from "./wrap.ts";

type Change = Schemas["FileChangeOut"];

const CHANGES: Record<Change["status"], FilePatch["change"]> = {
  added: "added",
  modified: "changed",
  deleted: "deleted",
  renamed: "renamed",
  copied: "copied",
  type_changed: "type",
};

/** The file as its patch and the API's list of changes say. */
function patchOf(change: Change): FilePatch {
  const parts = parsePatch(change.patch ?? "");
  return {
    path: change.path,
    oldPath: change.old_path ?? undefined,
    change: CHANGES[change.status] ?? "changed",
    binary: change.binary,
    mode: parts[0]?.mode,
    hunks: parts.flatMap((part) => part.hunks),
    additions: change.additions,
    deletions: change.deletions,
  };
}

const PHONE = matchMedia("(max-width: 40rem)");

function useIsPhone(): boolean {
  return useSyncExternalStore(
    (changed) => {
      PHONE.addEventListener("change", changed);
      return () => PHONE.removeEventListener("change", changed);
    },
    () => PHONE.matches,
  );
}

/** What the agent's commits have changed: in a phase, or in all of the build. The address of the page says which. */
export default function Changes({ build }: PanelProps) {
  const [search, setSearch] = useSearchParams();
  const phases = usePhases(build.id, isEnded(build.status));
  const asked = Number(search.get("phase") ?? Number.NaN);
  const phase = Number.isInteger(asked) && asked > 0 ? asked : "whole";
  const ended = phases.data?.phases ?? [];
  const stored = ended.filter(({ files }) => files !== null);
  const isStored = phase === "whole" ? stored.length > 0 : stored.some(({ number }) => number === phase);
  const diff = useDiff(build.id, phase, stored.at(-1)?.number, isStored);
  const [wrap, setWrap] = useWrap();
  const w = panelsWords.changes;

  if (phases.isPending) return <Skeleton lines={6} />;
  if (phases.data === undefined) {
    return (
      <div className={style.panel}>
        <Failure error={phases.error} retry={() => phases.refetch()} />
      </div>
    );
  }
  if (ended.length === 0) return <Empty title={w.empty}>{w.emptyHelp}</Empty>;
  const missing = diff.error instanceof Problem && diff.error.status === 404 ? diff.error : undefined;
  return (
    <div className={style.panel}>
      <div className={style.bar}>
        <label className={style.scope}>
          <span>{w.scope}</span>
          <select
            value={String(phase)}
            onChange={(event) =>
              setSearch((old) => {
                const next = new URLSearchParams(old);
                if (event.target.value === "whole") next.delete("phase");
                else next.set("phase", event.target.value);
                return next;
              })
            }
          >
            <option value="whole">{w.whole}</option>
            {ended.map(({ number, title }) => (
              <option key={number} value={number}>
                {w.phase(number, printable(title))}
              </option>
            ))}
          </select>
        </label>
        <label className={style.check}>
          <input type="checkbox" checked={wrap} onChange={(event) => setWrap(event.target.checked)} />
          {w.wrap}
        </label>
      </div>
      {!isStored ? (
        <Empty title={phase === "whole" ? w.missingWhole : w.missing}>{w.missingHelp}</Empty>
      ) : diff.isPending ? (
        <Skeleton lines={8} />
      ) : missing !== undefined ? (
        <Empty title={w.missing}>{printable(missing.message)}</Empty>
      ) : diff.data === undefined ? (
        diff.error && <Failure error={diff.error} retry={() => diff.refetch()} />
      ) : diff.data.changes.length === 0 ? (
        <Empty title={w.none} />
      ) : (
        <Changed key={`${phase} ${diff.data.commit}`} diff={diff.data} wrap={wrap} />
      )}
    </div>
  );
}

/** The changed files, and the changes of all of them; on a phone, of one at a time. */
function Changed({ diff, wrap }: { diff: DiffData; wrap: boolean }) {
  const isPhone = useIsPhone();
  const id = useId();
  const root = useRef<HTMLDivElement>(null);
  const [at, setAt] = useState<number>();
  const patches = useMemo(() => diff.changes.map(patchOf), [diff]);
  const w = panelsWords.changes;

  function go(to: number) {
    if (to < 0 || to >= patches.length) return;
    setAt(to);
    // After the file is there, which on a phone is only now.
    requestAnimationFrame(() => {
      const heading = document.getElementById(`${id}${to}`);
      heading?.focus({ preventScroll: true });
      heading?.closest("section")?.scrollIntoView({ block: "start" });
    });
  }

  const goBy = useRef((_: number) => {});
  goBy.current = (by) => go(at === undefined ? (by > 0 ? 0 : patches.length - 1) : at + by);
  useEffect(() => {
    const panel = root.current?.closest<HTMLElement>("[data-panel]") ?? root.current;
    function move(event: KeyboardEvent) {
      if (event.altKey || event.ctrlKey || event.metaKey || (event.key !== "n" && event.key !== "p")) return;
      if (event.target instanceof Element && event.target.closest("input, select, textarea") !== null) return;
      event.preventDefault();
      event.stopPropagation();
      goBy.current(event.key === "n" ? 1 : -1);
    }
    panel?.addEventListener("keydown", move);
    return () => panel?.removeEventListener("keydown", move);
  }, []);

  const list = (
    <FileList
      files={patches.map((patch) => ({
        path: patch.path,
        detail: <Extent file={patch} />,
      }))}
      selected={at === undefined ? undefined : patches[at]?.path}
      onSelect={(path) => go(patches.findIndex((patch) => patch.path === path))}
      label={w.files}
    />
  );
  const summary = (
    <p className={style.summary}>
      {w.summary(diff.files)} <Count additions={diff.additions} deletions={diff.deletions} />
    </p>
  );
  const notices = (
    <>
      {diff.changes.length < diff.files && <Notice kind="info" title={w.listCut(diff.changes.length)} />}
      {diff.truncated && diff.changes.length === diff.files && <Notice kind="info" title={w.cut} />}
    </>
  );
  const buttons = at !== undefined && (
    <p className={style.steps}>
      <Button small onClick={() => go(at - 1)} aria-disabled={at === 0} aria-label={w.previous}>
        <Icon name="arrowLeft" />
      </Button>
      <span>{w.of(at + 1, patches.length)}</span>
      <Button small onClick={() => go(at + 1)} aria-disabled={at === patches.length - 1} aria-label={w.next}>
        <Icon name="arrowRight" />
      </Button>
    </p>
  );

  if (isPhone) {
    const patch = at === undefined ? undefined : patches[at];
    return (
      <div ref={root} className={style.one}>
        {patch === undefined || at === undefined ? (
          <>
            {summary}
            {notices}
            {list}
          </>
        ) : (
          <>
            <div className={style.bar}>
              <Button kind="quiet" onClick={() => setAt(undefined)}>
                <Icon name="arrowLeft" /> {w.back}
              </Button>
              {buttons}
            </div>
            <Diff key={at} file={patch} wrap={wrap} isCut={diff.changes[at]?.truncated ?? false} id={`${id}${at}`} />
          </>
        )}
      </div>
    );
  }
  return (
    <div ref={root} className={style.all}>
      <div className={style.side}>
        <div className={style.bar}>
          {summary}
          {buttons}
        </div>
        {notices}
        {list}
        <p className={style.keys}>{w.keys}</p>
      </div>
      <div className={style.diffs}>
        {patches.map((patch, index) => (
          <div key={patch.path} className={style.diff}>
            <Diff file={patch} wrap={wrap} isCut={diff.changes[index]?.truncated ?? false} id={`${id}${index}`} />
          </div>
        ))}
      </div>
    </div>
  );
}
