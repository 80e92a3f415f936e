import { type ReactNode, useId, useMemo, useState } from "react";
import { panels as panelsWords } from "../words/panels.ts";
import style from "./FileList.module.css";
import { printableLine } from "./printable.ts";

export interface ListedFile {
  path: string;
  /** What stands at the end of its row, such as its size. */
  detail?: ReactNode;
}

/** Rows in the page at once. The filter leads to the others. */
const ROWS_MOST = 500;

interface Props {
  files: ListedFile[];
  selected?: string | undefined;
  onSelect: (path: string) => void;
  label: string;
}

/** The files under their folders, with a filter. */
export function FileList({ files, selected, onSelect, label }: Props) {
  const [filter, setFilter] = useState("");
  const filterId = useId();
  const found = useMemo(() => {
    const parts = filter.toLowerCase().split(/\s+/).filter(Boolean);
    return files.filter(({ path }) => parts.every((part) => path.toLowerCase().includes(part)));
  }, [files, filter]);
  const folders = useMemo(() => byFolder(found.slice(0, ROWS_MOST)), [found]);
  return (
    <nav className={style.list} aria-label={label}>
      {files.length > 8 && (
        <div className={style.filter}>
          <label className="visually-hidden" htmlFor={filterId}>
            {panelsWords.list.filter}
          </label>
          <input
            id={filterId}
            type="search"
            value={filter}
            placeholder={panelsWords.list.filter}
            autoComplete="off"
            spellCheck={false}
            onChange={(event) => setFilter(event.target.value)}
          />
        </div>
      )}
      {found.length === 0 && <p className={style.rest}>{panelsWords.list.none}</p>}
      {folders.map(([folder, inside]) => (
        <section key={folder} aria-label={folder === "" ? panelsWords.list.root : printableLine(folder)}>
          {folder !== "" && (
            <p className={style.folder} aria-hidden>
              <bdi>{printableLine(folder)}/</bdi>
            </p>
          )}
          <ul className={style.files}>
            {inside.map(({ path, detail }) => (
              <li key={path}>
                <button
                  type="button"
                  className={style.file}
                  aria-current={path === selected ? "true" : undefined}
                  onClick={() => onSelect(path)}
                >
                  <bdi className={style.name}>
                    {printableLine(folder === "" ? path : path.slice(folder.length + 1))}
                  </bdi>
                  {detail !== undefined && <span className={style.detail}>{detail}</span>}
                </button>
              </li>
            ))}
          </ul>
        </section>
      ))}
      {found.length > ROWS_MOST && <p className={style.rest}>{panelsWords.list.more(found.length - ROWS_MOST)}</p>}
      <p className="visually-hidden" role="status">
        {filter === "" ? "" : panelsWords.list.count(found.length)}
      </p>
    </nav>
  );
}

/** The files by the folder that they are in: the top level first, then the folders in their order. */
export function byFolder<T extends { path: string }>(files: T[]): [string, T[]][] {
  const folders = new Map<string, T[]>([["", []]]);
  for (const file of files) {
    const folder = file.path.slice(0, Math.max(0, file.path.lastIndexOf("/")));
    const inside = folders.get(folder);
    if (inside === undefined) folders.set(folder, [file]);
    else inside.push(file);
  }
  return [...folders].filter(([, inside]) => inside.length > 0);
}
