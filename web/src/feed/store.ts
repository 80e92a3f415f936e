/** A build's feed while someone looks at it: the newest events first, older ones on demand, new ones as they happen. */

import { type FeedEvent, readEvent, type SentEvent } from "./events.ts";
import { applyEvents, EMPTY, type FeedState } from "./state.ts";
import { FeedStream, type Live, Refused, type Surroundings } from "./stream.ts";

/** Events that are loaded at first. */
export const TAIL = 300;
/** Events of a page of the past; the most that the API gives at once. */
export const PAGE = 500;

/** Types that say how the build stands. They are loaded also if they are older than the first events. */
const MILESTONES = [
  ...["status", "model", "phase_completed", "preview", "ready", "budget"],
  ...["question", "answer", "message", "message_withdrawn"],
] as const;

export interface Snapshot {
  readonly state: FeedState;
  readonly live: Live;
  /** When something last arrived, in milliseconds since 1970; null before the first time. */
  readonly asOf: number | null;
  /** Whether older events are being loaded, or could not be loaded. */
  readonly history: "idle" | "loading" | "failed";
  /** Whether the feed is loaded from its beginning. Until then, counts and phases of the state are too low. */
  readonly isComplete: boolean;
  /** The ids of the first and the last loaded event, and how many are loaded; 0 if none are. */
  readonly firstId: number;
  readonly lastId: number;
  readonly count: number;
}

interface PastPage {
  readonly events: readonly SentEvent[];
  readonly next_before: number | null;
}

export class FeedStore {
  readonly #around: Surroundings;
  readonly #path: string;
  readonly #stream: FeedStream;
  readonly #listeners = new Set<() => void>();
  #cancelStop: (() => void) | null = null;
  #events: readonly FeedEvent[] = [];
  #milestones: readonly FeedEvent[] = [];
  #pending: FeedEvent[] = [];
  #isFrameAsked = false;
  #older: Promise<void> | null = null;
  #snapshot: Snapshot = {
    state: EMPTY,
    live: { kind: "opening" },
    asOf: null,
    history: "idle",
    isComplete: false,
    firstId: 0,
    lastId: 0,
    count: 0,
  };

  constructor(buildId: string, around: Surroundings) {
    this.#around = around;
    this.#path = `/v1/builds/${encodeURIComponent(buildId)}`;
    this.#stream = new FeedStream(
      {
        path: `${this.#path}/events`,
        prepare: (signal) => this.#open(signal),
        lastId: () => this.#pending.at(-1)?.id ?? this.#events.at(-1)?.id ?? 0,
        onEvents: (events) => this.#arrive(events),
        onLive: (live) => this.#change({ live }),
        onContact: (at) => {
          // Shown only while the connection is lost: not worth a picture of its own.
          this.#snapshot = { ...this.#snapshot, asOf: at };
        },
      },
      around,
    );
  }

  /** Call `listener` after every change. The feed is followed while it has listeners. */
  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    this.#cancelStop?.();
    this.#cancelStop = null;
    this.#stream.start();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      this.#cancelStop = this.#around.after(1000, () => this.#stream.stop());
    };
  };

  /** Whether nobody watches. */
  get isIdle(): boolean {
    return this.#listeners.size === 0;
  }

  readonly snapshot = (): Snapshot => this.#snapshot;

  readonly retryNow = (): void => this.#stream.retryNow();

  /** Load the page before the first event. Does nothing if there is none, or while one is being loaded. */
  readonly loadOlder = (): Promise<void> => {
    if (this.#older === null && !this.#snapshot.isComplete && this.#snapshot.count > 0) {
      this.#change({ history: "loading" });
      this.#older = this.#loadPage();
    }
    return this.#older ?? Promise.resolve();
  };

  /** Load older pages until the event with this id is there. */
  readonly loadTo = async (id: number): Promise<void> => {
    while (!this.#snapshot.isComplete && this.#snapshot.firstId > id) {
      const { firstId } = this.#snapshot;
      await this.loadOlder();
      if (this.#snapshot.firstId === firstId) return;
    }
  };

  async #open(signal: AbortSignal): Promise<void> {
    const types = MILESTONES.map((type) => `type=${type}`).join("&");
    const [tail, milestones] = await Promise.all([
      this.#past(`limit=${TAIL}`, signal),
      this.#past(`limit=${PAGE}&${types}`, signal),
    ]);
    this.#milestones = inOrder(milestones.events);
    this.#prepend(tail);
  }

  async #loadPage(): Promise<void> {
    const page = await this.#past(`limit=${PAGE}&before=${this.#snapshot.firstId}`).catch(() => null);
    // Before the change is announced: a listener may ask for the next page at once.
    this.#older = null;
    if (page === null) this.#change({ history: "failed" });
    else this.#prepend(page);
  }

  async #past(query: string, signal?: AbortSignal): Promise<PastPage> {
    const response = await this.#around.fetch(`${this.#path}/past-events?${query}`, { signal, cache: "no-store" });
    if (!response.ok) throw new Refused(response);
    return (await response.json()) as PastPage;
  }

  /** Put a page before the events. What they add up to is computed from the beginning. */
  #prepend(page: PastPage): void {
    this.#flush();
    this.#events = [...inOrder(page.events), ...this.#events];
    const isComplete = page.next_before === null;
    const first = this.#events[0]?.id ?? 0;
    const older = isComplete ? [] : this.#milestones.filter((event) => event.id < first);
    const base = { ...applyEvents(EMPTY, older), entries: [] };
    this.#change({ state: applyEvents(base, this.#events), history: "idle", isComplete });
  }

  #arrive(events: readonly FeedEvent[]): void {
    this.#pending.push(...events);
    if (this.#isFrameAsked) return;
    this.#isFrameAsked = true;
    this.#around.nextFrame(() => {
      this.#isFrameAsked = false;
      if (this.#flush()) this.#change({});
    });
  }

  /** Apply what has arrived since the last picture. Returns whether that was anything. */
  #flush(): boolean {
    const last = this.#events.at(-1)?.id ?? 0;
    const fresh = this.#pending.filter((event) => event.id > last);
    this.#pending = [];
    if (fresh.length === 0) return false;
    this.#events = [...this.#events, ...fresh];
    this.#snapshot = { ...this.#snapshot, state: applyEvents(this.#snapshot.state, fresh) };
    return true;
  }

  #change(changes: Partial<Snapshot>): void {
    this.#snapshot = {
      ...this.#snapshot,
      ...changes,
      firstId: this.#events[0]?.id ?? 0,
      lastId: this.#events.at(-1)?.id ?? 0,
      count: this.#events.length,
    };
    for (const listener of this.#listeners) listener();
  }
}

function inOrder(newestFirst: readonly SentEvent[]): FeedEvent[] {
  return newestFirst.map(readEvent).reverse();
}
