import { useVirtualizer } from "@tanstack/react-virtual";
import { type KeyboardEvent, useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "react";
import {
  CHIPS,
  type Chip,
  isFiltered,
  type Mode,
  makeRows,
  NO_ROWS,
  type Row,
  typesOf,
  type View,
} from "../../feed/rows.ts";
import { eventInHash } from "../../feed/showEvent.ts";
import { useBuildFeed } from "../../feed/useBuildFeed.ts";
import { Boundary } from "../../parts/Boundary.tsx";
import { Button } from "../../parts/Button.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { useSingleKeyActions } from "../../parts/shortcuts.ts";
import { browserStorage } from "../../parts/storage.ts";
import { feed as feedWords } from "../../words/feed.ts";
import { words } from "../../words/index.ts";
import style from "./Feed.module.css";
import { FeedRow } from "./FeedRow.tsx";
import { usePrinting } from "./usePrinting.ts";

const text = feedWords;

/** The feed follows its end while no more than so many pixels are below. */
const PINNED_PX = 80;
/** Earlier events are loaded when so few rows are above. */
const ROWS_ABOVE = 8;
/** Rows that are printed at most, the last ones: a browser lays out all of them at once. */
const PRINTED_MOST = 5_000;
const MODE_KEY = "cofounder-feed-mode";

const ROW_PX: Record<Row["kind"], number> = { said: 44, work: 36, call: 36, gate: 96, event: 36 };

export interface FeedProps {
  build: string;
  /** What people see who have not chosen yet: operators begin with everything. */
  startsWith?: Mode;
  /** Show a file of the workspace, such as in the tab of files. */
  onFile?: (path: string) => void;
}

function chosenMode(): Mode | null {
  const chosen = browserStorage.getItem(MODE_KEY);
  return chosen === "story" || chosen === "everything" ? chosen : null;
}

/** What the agent says and does: the newest last, as long as the build. */
export function Feed({ build, startsWith = "story", onFile }: FeedProps) {
  const feed = useBuildFeed(build);
  const { state } = feed;
  const [chosen, setChosen] = useState(chosenMode);
  const [filter, setFilter] = useState("");
  const [chips, setChips] = useState<ReadonlySet<Chip>>(new Set());
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set());
  const mode = chosen ?? startsWith;
  // Rows are drawn again only if they change, so what they call stays the same.
  const toggle = useCallback((key: string, isOpen?: boolean) => {
    setOpen((before) => {
      const next = new Set(before);
      if (isOpen ?? !next.has(key)) next.add(key);
      else next.delete(key);
      return next;
    });
  }, []);
  const view = useMemo<View>(() => ({ mode, text: filter, chips, open }), [mode, filter, chips, open]);

  const before = useRef(NO_ROWS);
  const made = useMemo(() => makeRows(state, view, before.current), [state, view]);
  before.current = made;
  const { rows } = made;

  const scroller = useRef<HTMLDivElement>(null);
  const filterField = useRef<HTMLInputElement>(null);
  const virtualizer = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: (index) => ROW_PX[rows[index]?.kind ?? "event"],
    getItemKey: useCallback((index: number) => rows[index]?.key ?? index, [rows]),
    overscan: 8,
    anchorTo: "end",
    followOnAppend: true,
    scrollEndThreshold: PINNED_PX,
    paddingStart: 8,
    paddingEnd: 12,
  });
  const items = virtualizer.getVirtualItems();

  const { isPrinting, isOnScreen } = usePrinting(scroller);
  const { isPinned, lastSeen } = usePinned(
    virtualizer,
    scroller,
    rows,
    `${mode} ${filter} ${[...chips].join()}`,
    isOnScreen,
  );
  const fresh = isPinned ? 0 : rowsAfter(rows, lastSeen);

  useLoadOlder(feed, items[0]?.index ?? 0, isFiltered(view) || rows.length === 0, isOnScreen);
  const target = useTarget(feed, rows, virtualizer);
  const shown: readonly { index: number; start?: number }[] = isPrinting ? lastRows(rows) : items;

  const showFile = useRef(onFile);
  showFile.current = onFile;
  const openFile = useCallback((path: string) => showFile.current?.(path), []);

  function choose(next: Mode) {
    browserStorage.setItem(MODE_KEY, next);
    setChosen(next);
  }

  const [active, setActive] = useState<string | null>(null);
  const activeKey = active !== null && rows.some((row) => row.key === active) ? active : (rows.at(-1)?.key ?? null);

  function move(step: 1 | -1) {
    const now = rows.findIndex((row) => row.key === activeKey);
    const isInside = scroller.current?.contains(document.activeElement);
    const next = rows[isInside ? Math.min(rows.length - 1, Math.max(0, now + step)) : now];
    if (next === undefined) return;
    const index = rows.indexOf(next);
    setActive(next.key);
    virtualizer.scrollToIndex(index, { align: "auto" });
    requestAnimationFrame(() => {
      scroller.current?.querySelector<HTMLElement>(`[data-index="${index}"]`)?.focus({ preventScroll: true });
    });
  }

  useSingleKeyActions({
    v: () => choose(mode === "story" ? "everything" : "story"),
    "/": () => filterField.current?.focus(),
    j: () => move(1),
    k: () => move(-1),
    o: () => activeKey !== null && isInside(scroller.current) && toggle(activeKey),
    End: () => virtualizer.scrollToEnd(),
  });

  function onRowKey(event: KeyboardEvent, row: Row) {
    if (event.target !== event.currentTarget) return;
    if (event.key === "Enter") toggle(row.key);
    else if (event.key === "ArrowDown") move(1);
    else if (event.key === "ArrowUp") move(-1);
    else return;
    event.preventDefault();
  }

  const clearFilter = () => {
    setFilter("");
    setChips(new Set());
  };

  return (
    <section className={style.feed} aria-label={text.title}>
      <Tools
        {...{ mode, choose, filter, setFilter, chips, setChips, filterField }}
        isFiltered={isFiltered(view)}
        clear={clearFilter}
      />
      <div
        ref={scroller}
        className={style.scroller}
        data-first={feed.firstId}
        data-last={feed.lastId}
        data-count={feed.count}
        data-complete={feed.isComplete}
      >
        <Above feed={feed} isEmpty={rows.length === 0} isFiltered={isFiltered(view)} clear={clearFilter} />
        {isPrinting && (rows.length > PRINTED_MOST || !feed.isComplete) && (
          <p className={style.cut}>
            {rows.length > PRINTED_MOST ? text.printedLast(PRINTED_MOST) : text.printedLoaded(feed.firstId)}
          </p>
        )}
        <ol
          className={style.rows}
          aria-label={text.what}
          style={isPrinting ? undefined : { height: virtualizer.getTotalSize() }}
        >
          {shown.map(({ index, start }) => {
            const row = rows[index];
            if (row === undefined) return null;
            return (
              <li
                key={row.key}
                ref={isPrinting ? undefined : virtualizer.measureElement}
                data-index={index}
                data-row={row.key}
                data-event={row.id}
                data-types={[...new Set(typesOf(row))].join(" ")}
                className={`${style.row} ${target === row.key ? style.target : ""}`}
                style={start === undefined ? undefined : { transform: `translateY(${start}px)` }}
                aria-posinset={index + 1}
                aria-setsize={feed.isComplete ? rows.length : -1}
                tabIndex={row.key === activeKey ? 0 : -1}
                onFocus={() => setActive(row.key)}
                onKeyDown={(event) => onRowKey(event, row)}
              >
                <Boundary fallback={<p className={style.broken}>{words.shared.notShown}</p>}>
                  <FeedRow
                    {...{ build, row, toggle }}
                    status={state.status}
                    beganAt={state.beganAt}
                    onFile={onFile && openFile}
                  />
                </Boundary>
              </li>
            );
          })}
        </ol>
      </div>
      {!isPinned && rows.length > 0 && (
        <Button small className={style.toEnd} onClick={() => virtualizer.scrollToEnd()}>
          {fresh > 0 ? text.newRows(fresh) : text.toEnd}
          <Icon name="arrowDown" size={14} />
        </Button>
      )}
    </section>
  );
}

function isInside(element: HTMLElement | null): boolean {
  return element?.contains(document.activeElement) ?? false;
}

/** Where the rows are that are printed. */
function lastRows(rows: readonly Row[]): { index: number }[] {
  return rows.map((_, index) => ({ index })).slice(-PRINTED_MOST);
}

/** How many rows follow the one with this key. */
function rowsAfter(rows: readonly Row[], key: string | null): number {
  const index = rows.findLastIndex((row) => row.key === key);
  return index === -1 ? 0 : rows.length - 1 - index;
}

type Virtualizer = ReturnType<typeof useVirtualizer<HTMLDivElement, Element>>;

/** Whether the end is in view, and the last row that was there when it was. Keeps the end in view if that was so. */
function usePinned(
  virtualizer: Virtualizer,
  scroller: React.RefObject<HTMLDivElement | null>,
  rows: readonly Row[],
  viewKey: string,
  isOnScreen: boolean,
): { isPinned: boolean; lastSeen: string | null } {
  const [isPinned, setPinned] = useState(true);
  const lastSeen = useRef<string | null>(null);
  const pinned = useRef(true);
  const onScreen = useRef(isOnScreen);
  onScreen.current = isOnScreen;
  const firstEvent = useRef(0);
  if (isPinned) lastSeen.current = rows.at(-1)?.key ?? null;

  const latest = useRef(rows);
  latest.current = rows;

  // Another view has other rows: it shows the same time of the build, or the end.
  useLayoutEffect(() => {
    if (pinned.current) virtualizer.scrollToEnd();
    else {
      const index = latest.current.findLastIndex((row) => row.id <= firstEvent.current);
      virtualizer.scrollToIndex(Math.max(0, index), { align: "start" });
    }
  }, [viewKey]);

  useEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const onScroll = () => {
      if (!onScreen.current) return;
      pinned.current = element.scrollHeight - element.scrollTop - element.clientHeight <= PINNED_PX;
      setPinned(pinned.current);
      firstEvent.current = latest.current[virtualizer.getVirtualItemForOffset(element.scrollTop)?.index ?? 0]?.id ?? 0;
    };
    element.addEventListener("scroll", onScroll, { passive: true });
    return () => element.removeEventListener("scroll", onScroll);
  }, [scroller, virtualizer]);

  // The box becomes lower when the field below it grows or a phone's keyboard opens.
  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => {
      if (pinned.current && onScreen.current) virtualizer.scrollToEnd();
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, [scroller, virtualizer]);

  return { isPinned, lastSeen: lastSeen.current };
}

/** Load earlier events when the first rows come into view; with a filter, until it has a screenful or there are none. */
function useLoadOlder(
  feed: ReturnType<typeof useBuildFeed>,
  firstIndex: number,
  isSearching: boolean,
  isOnScreen: boolean,
): void {
  const { history, isComplete, loadOlder, count } = feed;
  useEffect(() => {
    if (!isOnScreen || history !== "idle" || isComplete || count === 0) return;
    if (isSearching || firstIndex < ROWS_ABOVE) void loadOlder();
  }, [history, isComplete, loadOlder, count, firstIndex, isSearching, isOnScreen]);
}

/** Scroll to the event that the address names. Returns the key of its row, to mark it. */
function useTarget(
  feed: ReturnType<typeof useBuildFeed>,
  rows: readonly Row[],
  virtualizer: Virtualizer,
): string | null {
  const [wanted, setWanted] = useState<number | null>(() => eventInHash(location.hash));
  const [key, setKey] = useState<string | null>(null);
  const { loadTo, count, firstId, isComplete } = feed;

  useEffect(() => {
    const onHash = () => setWanted(eventInHash(location.hash));
    addEventListener("hashchange", onHash);
    return () => removeEventListener("hashchange", onHash);
  }, []);

  useEffect(() => {
    if (wanted !== null && count > 0 && firstId > wanted && !isComplete) void loadTo(wanted);
  }, [wanted, count, firstId, isComplete, loadTo]);

  useEffect(() => {
    if (wanted === null || count === 0 || (firstId > wanted && !isComplete)) return;
    const index = rows.findLastIndex((row) => row.id <= wanted);
    const row = rows[index];
    if (row === undefined) return;
    setWanted(null);
    setKey(row.key);
    virtualizer.scrollToIndex(index, { align: "center" });
  }, [wanted, count, firstId, isComplete, rows, virtualizer]);

  return key;
}

/** What is before the first row: earlier events that are being loaded or could not be, or why there is none. */
function Above({
  feed,
  isEmpty,
  isFiltered: filtered,
  clear,
}: {
  feed: ReturnType<typeof useBuildFeed>;
  isEmpty: boolean;
  isFiltered: boolean;
  clear: () => void;
}) {
  if (feed.history === "failed") {
    return (
      <p className={style.above}>
        {text.olderFailed}
        <Button small onClick={() => void feed.loadOlder()}>
          {text.retry}
        </Button>
      </p>
    );
  }
  if (feed.history === "loading") return <p className={style.above}>{text.loadingOlder}</p>;
  if (!isEmpty) return null;
  if (filtered) {
    return (
      <p className={style.empty}>
        {text.noMatch}
        <Button small onClick={clear}>
          {text.clearFilter}
        </Button>
      </p>
    );
  }
  return <p className={style.empty}>{feed.live.kind === "opening" ? words.shared.loading : text.empty}</p>;
}

interface ToolsProps {
  mode: Mode;
  choose: (mode: Mode) => void;
  filter: string;
  setFilter: (filter: string) => void;
  chips: ReadonlySet<Chip>;
  setChips: (chips: ReadonlySet<Chip>) => void;
  filterField: React.RefObject<HTMLInputElement | null>;
  isFiltered: boolean;
  clear: () => void;
}

/** How much of the feed is shown. */
function Tools({ mode, choose, filter, setFilter, chips, setChips, filterField, isFiltered, clear }: ToolsProps) {
  const [areChipsShown, setChipsShown] = useState(false);
  const chipsId = useId();
  return (
    <div className={style.tools}>
      <fieldset className={style.modes}>
        <legend className="visually-hidden">{text.mode}</legend>
        {(["story", "everything"] as const).map((each) => (
          <button
            key={each}
            type="button"
            className={style.mode}
            aria-pressed={mode === each}
            onClick={() => choose(each)}
          >
            {text.modes[each]}
          </button>
        ))}
      </fieldset>
      <div className={style.search}>
        <Icon name="search" size={14} />
        <input
          ref={filterField}
          type="search"
          value={filter}
          placeholder={text.filter}
          aria-label={text.filterHint}
          onChange={(event) => setFilter(event.target.value)}
          onKeyDown={(event) => {
            if (event.key !== "Escape") return;
            clear();
            setChipsShown(false);
            event.currentTarget.blur();
          }}
        />
      </div>
      <Button
        small
        kind="quiet"
        aria-expanded={areChipsShown}
        aria-controls={chipsId}
        onClick={() => setChipsShown(!areChipsShown)}
      >
        {text.kindsOf}
        {chips.size > 0 && ` (${chips.size})`}
      </Button>
      <div id={chipsId} className={style.chips} hidden={!areChipsShown && !isFiltered}>
        {CHIPS.map((chip) => (
          <button
            key={chip}
            type="button"
            className={style.chip}
            aria-pressed={chips.has(chip)}
            onClick={() => {
              const next = new Set(chips);
              if (!next.delete(chip)) next.add(chip);
              setChips(next);
            }}
          >
            {text.chips[chip]}
          </button>
        ))}
        {isFiltered && (
          <Button small kind="quiet" onClick={clear}>
            {text.clearFilter}
          </Button>
        )}
      </div>
    </div>
  );
}
