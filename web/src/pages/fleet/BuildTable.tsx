import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useEffect, useId, useLayoutEffect, useRef, useState } from "react";
import { Link } from "wouter";
import { Button } from "../../parts/Button.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { money } from "../../parts/money.ts";
import { printable } from "../../parts/printable.ts";
import { Time } from "../../parts/Time.tsx";
import { webAddress } from "../../parts/webAddress.ts";
import { paths } from "../../paths.ts";
import { fleet as words } from "../../words/fleet.ts";
import type { Build } from "./data.ts";
import style from "./Fleet.module.css";
import { FleetStatus } from "./FleetStatus.tsx";
import { nextSort, sortOf } from "./filter.ts";
import { MAX_SELECTED } from "./selection.ts";

const ROW_PIXELS = 58;
/** More builds are fetched when this few rows are left below. */
const ROWS_AHEAD = 30;

const text = words.table;

/** The columns that sort, by the API's name for it. */
const SORTS: [key: string, name: string][] = [
  ["created_at", text.created],
  ["since", text.since],
  ["turn", text.turn],
  ["spent", text.spent],
  ["wakes_at", text.wakes],
  ["last_event_at", text.lastEvent],
];

interface Props {
  builds: readonly Build[];
  total: number;
  sort: string;
  onSort: (sort: string) => void;
  /** The ids that are selected; undefined if the reader can't act. */
  selected: ReadonlySet<string> | undefined;
  onSelect: (selected: ReadonlySet<string>) => void;
  hasMore: boolean;
  isLoadingMore: boolean;
  onMore: () => void;
  /** The builds are those of the filter before; the new ones are on their way. */
  isOld: boolean;
}

/** The list of builds: a table of which only the rows in the window exist; cards on a narrow screen. */
export function BuildTable(props: Props) {
  const { builds, total, sort, onSort, selected, onSelect, hasMore, isLoadingMore, onMore, isOld } = props;
  const body = useRef<HTMLTableSectionElement>(null);
  const [top, setTop] = useState(0);
  // What is above the list grows and shrinks.
  useLayoutEffect(() => {
    const now = Math.round((body.current?.getBoundingClientRect().top ?? 0) + window.scrollY);
    if (now !== top) setTop(now);
  });
  const virtualizer = useWindowVirtualizer({
    count: builds.length,
    estimateSize: () => ROW_PIXELS,
    getItemKey: (index) => builds[index]?.id ?? index,
    overscan: 8,
    scrollMargin: top,
  });
  const selectAllId = useId();
  const rows = virtualizer.getVirtualItems();
  const lastSeen = rows.at(-1)?.index ?? 0;
  const isNearEnd = lastSeen >= builds.length - ROWS_AHEAD;
  useEffect(() => {
    if (isNearEnd && hasMore && !isLoadingMore && !isOld) onMore();
  }, [isNearEnd, hasMore, isLoadingMore, isOld, onMore]);

  const shownIds = builds.slice(0, MAX_SELECTED).map(({ id }) => id);
  const allSelected = selected !== undefined && shownIds.length > 0 && shownIds.every((id) => selected.has(id));
  function toggle(id: string) {
    const next = new Set(selected);
    if (!next.delete(id) && next.size < MAX_SELECTED) next.add(id);
    onSelect(next);
  }

  // Once in the table's head, and once above the table on a narrow screen, where there are no columns.
  const selectAll = (id?: string) => (
    <input
      id={id}
      type="checkbox"
      aria-label={text.selectAll(shownIds.length)}
      checked={allSelected}
      onChange={() => onSelect(new Set(allSelected ? [] : shownIds))}
    />
  );

  return (
    <>
      <div className={style.listHead}>
        <p role="status">{total === 0 ? words.filter.none : words.filter.match(total)}</p>
        <label className={style.narrowOnly}>
          {text.sort}
          <select value={sort} onChange={(event) => onSort(event.target.value)}>
            {SORTS.flatMap(([key, name]) => [
              <option key={`-${key}`} value={`-${key}`}>
                {text.highestFirst(name)}
              </option>,
              <option key={key} value={key}>
                {text.lowestFirst(name)}
              </option>,
            ])}
          </select>
        </label>
        {selected !== undefined && builds.length > 0 && (
          <label htmlFor={selectAllId} className={`${style.narrowOnly} ${style.selectAll}`}>
            {selectAll(selectAllId)}
            {text.selectAll(shownIds.length)}
          </label>
        )}
      </div>
      {builds.length > 0 && (
        <table
          aria-label={text.caption}
          aria-rowcount={total + 1}
          aria-busy={isOld || undefined}
          className={`${style.table} ${isOld ? style.old : ""} ${selected === undefined ? style.noSelection : ""}`}
        >
          <thead className={style.tableHead}>
            <tr aria-rowindex={1} className={style.row}>
              {selected !== undefined && (
                <td>
                  <span className={style.wideOnly}>{selectAll()}</span>
                </td>
              )}
              <th scope="col">{text.user}</th>
              <th scope="col">{text.goal}</th>
              <th scope="col">{text.status}</th>
              <SortHead name={text.turn} by="turn" sort={sort} onSort={onSort} isNumber />
              <SortHead name={text.spent} by="spent" sort={sort} onSort={onSort} isNumber />
              <SortHead name={text.since} by="since" sort={sort} onSort={onSort} />
              <SortHead name={text.lastEvent} by="last_event_at" sort={sort} onSort={onSort} />
              <SortHead name={text.wakes} by="wakes_at" sort={sort} onSort={onSort} />
              <th scope="col">{text.version}</th>
              <th scope="col">{text.links}</th>
            </tr>
          </thead>
          <tbody ref={body} className={style.tableBody} style={{ blockSize: virtualizer.getTotalSize() }}>
            {rows.map((row) => {
              const build = builds[row.index];
              if (build === undefined) return null;
              return (
                <tr
                  key={row.key}
                  ref={virtualizer.measureElement}
                  data-index={row.index}
                  aria-rowindex={row.index + 2}
                  aria-selected={selected?.has(build.id)}
                  className={style.row}
                  style={{ transform: `translateY(${row.start - top}px)` }}
                >
                  <Cells build={build} isSelected={selected?.has(build.id)} onToggle={() => toggle(build.id)} />
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
      {hasMore && (
        <div>
          <Button small busy={isLoadingMore} onClick={onMore}>
            {text.more}
          </Button>
        </div>
      )}
    </>
  );
}

interface SortHeadProps {
  name: string;
  by: string;
  sort: string;
  onSort: (sort: string) => void;
  isNumber?: boolean;
}

function SortHead({ name, by, sort, onSort, isNumber = false }: SortHeadProps) {
  const direction = sortOf(sort, by);
  return (
    <th scope="col" aria-sort={direction} className={isNumber ? style.number : undefined}>
      <span className={style.narrowOnly}>{name}</span>
      <button type="button" className={style.wideOnly} onClick={() => onSort(nextSort(sort, by))}>
        {name}
        {direction !== "none" && <Icon name={direction === "ascending" ? "arrowUp" : "arrowDown"} size={12} />}
      </button>
    </th>
  );
}

interface CellsProps {
  build: Build;
  isSelected: boolean | undefined;
  onToggle: () => void;
}

function Cells({ build, isSelected, onToggle }: CellsProps) {
  const user = printable(build.user_id);
  const project = printable(build.project_name);
  const temporal = build.temporal_url ? webAddress(build.temporal_url) : undefined;
  return (
    <>
      {isSelected !== undefined && (
        <td className={style.check}>
          <input type="checkbox" checked={isSelected} onChange={onToggle} aria-label={text.select(user, project)} />
        </td>
      )}
      <td>
        <Link to={paths.fleetUser(build.user_id)}>
          <bdi>{user}</bdi>
        </Link>
        <small>{printable(build.plan)}</small>
      </td>
      <td>
        <Link to={paths.fleetBuild(build.id)}>
          <bdi>{project}</bdi>
        </Link>
        <small className={style.clamped} title={printable(build.goal)}>
          {printable(build.goal)}
        </small>
      </td>
      <td>
        <FleetStatus
          status={build.status}
          waitingFor={build.waiting_for}
          dependency={build.dependency}
          reason={build.reason}
        />
      </td>
      <Value name={text.turn} isNumber>
        {build.turn}
      </Value>
      <Value name={text.spent} isNumber>
        {money(build.spent_microdollars)}
      </Value>
      <Value name={text.since}>
        <Time at={build.since} as="ago" />
      </Value>
      <Value name={text.lastEvent}>{build.last_event_at ? <Time at={build.last_event_at} as="ago" /> : "–"}</Value>
      <Value name={text.wakes}>{build.wakes_at ? <Time at={build.wakes_at} as="ago" /> : "–"}</Value>
      <Value name={text.version}>{build.version ? <code>{printable(build.version)}</code> : "–"}</Value>
      <td className={style.links}>
        <Link to={paths.fleetBuild(build.id)} aria-label={text.openOf(user, project)}>
          {text.open}
        </Link>
        {temporal !== undefined && (
          <a href={temporal.href} target="_blank" rel="noopener noreferrer" aria-label={text.temporalOf(user, project)}>
            {text.temporal} <Icon name="external" size={12} />
          </a>
        )}
      </td>
    </>
  );
}

/** A cell whose column's name is shown with it on a narrow screen, where there are no columns. */
function Value({ name, isNumber = false, children }: { name: string; isNumber?: boolean; children: ReactNode }) {
  return (
    <td className={`${style.value} ${isNumber ? style.number : ""}`}>
      <span className={style.label} aria-hidden>
        {name}{" "}
      </span>
      {children}
    </td>
  );
}
