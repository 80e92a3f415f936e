import { lazy, Suspense } from "react";
import { useSearchParams } from "wouter";
import { Button } from "../../../parts/Button.tsx";
import { Failure } from "../../../parts/Failure.tsx";
import { Notice } from "../../../parts/Notice.tsx";
import { printableLine } from "../../../parts/printable.ts";
import { Skeleton } from "../../../parts/Skeleton.tsx";
import { SourceText } from "../../../parts/SourceText.tsx";
import { panels as panelsWords } from "../../../words/panels.ts";
import style from "./Documents.module.css";
import { documentsOf, linkedPath } from "./documents.ts";
import { Empty } from "./Empty.tsx";
import type { PanelProps } from "./Panels.tsx";
import { useSnapshotFile, useSnapshotFiles } from "./queries.ts";

const Markdown = lazy(() => import("../../../parts/Markdown.tsx"));

/** The documents of the latest snapshot, as the agent wrote them. The address of the page says which. */
export default function Documents({ build }: PanelProps) {
  const [search, setSearch] = useSearchParams();
  const files = useSnapshotFiles(build.id, "latest");
  const paths = documentsOf(files.data?.files.filter(({ kind }) => kind === "file").map(({ path }) => path) ?? []);
  const asked = search.get("document");
  const path = paths.find((each) => each === asked) ?? paths[0];
  const file = useSnapshotFile(build.id, files.data?.snapshot, path);
  const w = panelsWords.documents;

  function go(changes: Record<string, string>) {
    setSearch((old) => {
      const next = new URLSearchParams(old);
      for (const [name, value] of Object.entries(changes)) next.set(name, value);
      return next;
    });
  }

  if (files.isPending) return <Skeleton lines={6} />;
  if (files.isError && files.data === undefined) {
    return (
      <div className={style.panel}>
        <Failure error={files.error} retry={() => files.refetch()} />
      </div>
    );
  }
  if (path === undefined) return <Empty title={w.empty}>{w.emptyHelp}</Empty>;
  const text = file.data?.text ?? "";
  const known = new Set(files.data?.files.map((each) => each.path));
  function follow(href: string) {
    const to = linkedPath(path ?? "", href);
    if (to === undefined) return;
    if (paths.includes(to)) go({ document: to });
    else if (known.has(to)) go({ tab: "files", path: to });
  }
  return (
    <div className={style.panel}>
      <div className={style.bar}>
        <label className={style.choice}>
          <span className="visually-hidden">{w.label}</span>
          <select value={path} onChange={(event) => go({ document: event.target.value })}>
            {paths.map((each) => (
              <option key={each} value={each}>
                {printableLine(each)}
              </option>
            ))}
          </select>
        </label>
        <Button kind="quiet" small onClick={() => go({ tab: "files", path })}>
          {w.openInFiles}
        </Button>
      </div>
      {file.isPending ? (
        <Skeleton lines={8} />
      ) : file.isError ? (
        <Failure error={file.error} retry={() => file.refetch()} />
      ) : (
        <article aria-label={printableLine(path)}>
          {file.data.truncated && <Notice kind="info" title={w.truncated} />}
          {/\.(md|markdown)$/i.test(path) && text.length <= MARKDOWN_MOST ? (
            <Suspense fallback={<Skeleton lines={8} />}>
              <Markdown text={text} onFile={follow} />
            </Suspense>
          ) : (
            <SourceText text={text} label={printableLine(path)} wrap />
          )}
        </article>
      )}
    </div>
  );
}

/** Characters of a document that is shown as Markdown. Reading a longer one would stop the page for a while. */
const MARKDOWN_MOST = 200_000;
