import { useSearchParams } from "wouter";
import type { Schemas } from "../../../api/client.ts";
import { Button, ButtonLink } from "../../../parts/Button.tsx";
import { Copy } from "../../../parts/Copy.tsx";
import { Failure } from "../../../parts/Failure.tsx";
import { FileList } from "../../../parts/FileList.tsx";
import { Icon } from "../../../parts/Icon.tsx";
import { Notice } from "../../../parts/Notice.tsx";
import { printableLine } from "../../../parts/printable.ts";
import { Skeleton } from "../../../parts/Skeleton.tsx";
import { isCrlf, linesOf, SourceText } from "../../../parts/SourceText.tsx";
import { size } from "../../../parts/size.ts";
import { ago } from "../../../parts/Time.tsx";
import { panelTabs } from "../../../words/build.ts";
import { panels as panelsWords } from "../../../words/panels.ts";
import { Empty } from "./Empty.tsx";
import style from "./Files.module.css";
import type { PanelProps } from "./Panels.tsx";
import { contentAddress, useSnapshotFile, useSnapshotFiles, useSnapshots } from "./queries.ts";
import { useWrap } from "./wrap.ts";

/** The files of the workspace as of a snapshot. The address of the page says which snapshot, file and line. */
export default function Files({ build }: PanelProps) {
  const [search, setSearch] = useSearchParams();
  const number = search.get("snapshot") ?? "latest";
  const path = search.get("path") ?? undefined;
  const line = Number(search.get("line") ?? Number.NaN);
  const files = useSnapshotFiles(build.id, number);
  const snapshots = useSnapshots(build.id);
  const w = panelsWords.files;

  function go(changes: Record<string, string | undefined>) {
    setSearch((old) => {
      const next = new URLSearchParams(old);
      for (const [name, value] of Object.entries(changes)) {
        if (value === undefined) next.delete(name);
        else next.set(name, value);
      }
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
  if (files.data === null || files.data === undefined) {
    if (number === "latest") return <Empty title={w.empty}>{w.emptyHelp}</Empty>;
    return (
      <Empty title={w.gone(number)}>
        <Button onClick={() => go({ snapshot: undefined })}>{w.showLatest}</Button>
      </Empty>
    );
  }
  const listed = files.data;
  const stored = snapshots.data?.snapshots ?? [];
  return (
    <div className={style.panel} data-open={path !== undefined}>
      <div className={style.bar}>
        <label className={style.snapshot}>
          <span>{w.snapshot}</span>
          <select
            value={number}
            onChange={(event) =>
              go({ snapshot: event.target.value === "latest" ? undefined : event.target.value, line: undefined })
            }
          >
            <option value="latest">
              {number === "latest" ? w.latest(listed.snapshot) : w.latest(stored[0]?.number ?? listed.snapshot)}
            </option>
            {stored.map(({ number: each, stored_at }) => (
              <option key={each} value={each}>
                {w.option(each, stored_at ? ago(new Date(stored_at)) : "")}
              </option>
            ))}
          </select>
        </label>
        <span className={style.count}>{panelsWords.list.count(listed.files.length)}</span>
      </div>
      <div className={style.list}>
        <FileList
          files={listed.files.map(({ path: each, bytes, kind }) => ({
            path: each,
            detail: kind === "link" ? w.linkDetail : size(bytes),
          }))}
          selected={path}
          onSelect={(each) => go({ path: each, line: undefined })}
          label={panelTabs.tabs.files}
        />
        {listed.next_after !== null && <p className={style.quiet}>{w.listCut(listed.files.length)}</p>}
      </div>
      <div className={style.file}>
        {path === undefined ? (
          <p className={style.choose}>{w.choose}</p>
        ) : (
          <>
            <div className={style.back}>
              <Button kind="quiet" small onClick={() => go({ path: undefined, line: undefined })}>
                <Icon name="arrowLeft" /> {w.back}
              </Button>
            </div>
            <OneFile
              key={`${listed.snapshot} ${path}`}
              build={build.id}
              number={listed.snapshot}
              path={path}
              line={Number.isInteger(line) && line > 0 ? line : undefined}
            />
          </>
        )}
      </div>
    </div>
  );
}

interface FileProps {
  build: string;
  number: number;
  path: string;
  line: number | undefined;
}

function OneFile({ build, number, path, line }: FileProps) {
  const file = useSnapshotFile(build, number, path);
  const [wrap, setWrap] = useWrap();
  const w = panelsWords.files;
  if (file.isPending) return <Skeleton lines={8} />;
  if (file.isError) return <Failure error={file.error} retry={() => file.refetch()} />;
  const found = file.data;
  const address = contentAddress(build, number, path);
  return (
    <>
      <div className={style.head}>
        <h3 className={style.path}>
          <bdi>{printableLine(found.path)}</bdi>
        </h3>
        <Copy text={found.path} label={w.copyPath} />
      </div>
      <div className={style.facts}>
        <span>
          {[
            size(found.bytes),
            found.text ? w.lines(linesOf(found.text).length) : undefined,
            found.text && isCrlf(found.text) ? w.crlf : undefined,
            found.executable ? w.executable : undefined,
          ]
            .filter(Boolean)
            .join(" · ")}
        </span>
        <span className={style.actions}>
          {found.text && (
            <label className={style.check}>
              <input type="checkbox" checked={wrap} onChange={(event) => setWrap(event.target.checked)} />
              {w.wrap}
            </label>
          )}
          {found.text && !found.truncated && <Copy text={found.text} label={w.copyText} />}
          {found.kind === "file" && (
            <ButtonLink to={address} download={nameOf(path)} small>
              <Icon name="download" /> {w.download}
            </ButtonLink>
          )}
        </span>
      </div>
      {found.truncated && <Notice kind="info" title={w.truncated} />}
      <Content file={found} address={address} wrap={wrap} line={line} />
    </>
  );
}

interface ContentProps {
  file: Schemas["FileContentOut"];
  address: string;
  wrap: boolean;
  line: number | undefined;
}

function Content({ file, address, wrap, line }: ContentProps) {
  const w = panelsWords.files;
  if (file.kind === "link") {
    return (
      <p>
        {w.link} <code>{printableLine(file.text ?? "")}</code>
      </p>
    );
  }
  if (file.media_type.startsWith("image/")) {
    return <img className={style.picture} src={address} alt={w.picture(printableLine(file.path))} />;
  }
  if (file.binary || file.text === null) return <p className={style.quiet}>{w.binary}</p>;
  if (file.text === "") return <p className={style.quiet}>{w.noText}</p>;
  return <SourceText text={file.text} label={w.text} wrap={wrap} line={line} />;
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
