/**
 * Follows a build's feed: one connection that is opened again for as long as someone watches. No event is lost or
 * doubled, because each connection begins after the last event that arrived.
 */

import { createParser } from "eventsource-parser";
import { type FeedEvent, readEvent } from "./events.ts";
import type { Places } from "./places.ts";

/** The browser, as far as the feed needs it. */
export interface Surroundings {
  fetch(path: string, init: RequestInit): Promise<Response>;
  /** Milliseconds since 1970. */
  now(): number;
  /** A number from 0 to 1. */
  random(): number;
  /** Call back after so many milliseconds. Returns what cancels that. */
  after(milliseconds: number, callback: () => void): () => void;
  /** Call back when the next picture is drawn, or soon if none is. */
  nextFrame(callback: () => void): void;
  isVisible(): boolean;
  isOnline(): boolean;
  /** Call back whenever the page is shown or hidden, or the network comes or goes. Returns what ends that. */
  watch(callback: () => void): () => void;
  /** The connections that all tabs may keep open together; undefined if that is not limited. */
  readonly places?: Places;
}

/** How the feed is connected. */
export type Live =
  /** The newest events are being loaded. */
  | { readonly kind: "opening" }
  | { readonly kind: "live" }
  /** The connection is lost. `retryAt`: when it is tried again, in milliseconds since 1970. */
  | { readonly kind: "reconnecting"; readonly attempt: number; readonly retryAt: number }
  /** The same, and the browser has no network. */
  | { readonly kind: "offline"; readonly retryAt: number }
  /** Nobody has looked at the page for a minute. */
  | { readonly kind: "paused" }
  /** The build has ended, and so has its feed. */
  | { readonly kind: "ended" }
  | { readonly kind: "signed out" }
  | { readonly kind: "not found" };

/** The API's refusal of a request. */
export class Refused extends Error {
  readonly status: number;
  /** Milliseconds after which to try again, if the API says so. */
  readonly retryAfter: number;

  constructor(response: Response) {
    super(`The API has answered with the status ${response.status}.`);
    this.name = "Refused";
    this.status = response.status;
    const seconds = Number(response.headers.get("Retry-After") ?? 0);
    this.retryAfter = Number.isFinite(seconds) ? seconds * 1000 : 0;
  }
}

/** The connection is lost if nothing arrives for so long; the API sends something every 15 seconds. */
export const SILENCE_MS = 40_000;
/** A connection that was silent for so long is not trusted when the page is looked at again. */
export const DOUBT_MS = 20_000;
/** After a connection that has lasted so long, the attempts are counted from 1 again. */
export const STEADY_MS = 5_000;
/** The longest pause between attempts. */
export const LONGEST_PAUSE_MS = 15_000;
/** A page that nobody looks at keeps its connection for so long. */
export const HIDDEN_MS = 60_000;

/** Without a place, a connection is closed after so long... */
export const BRIEF_MS = 500;
/** ...and opened again after so long. */
export const BRIEF_PAUSE_MS = 3_000;

const FIRST_PAUSE_MS = 500;
/** A connection that the server has closed in order is opened again after so long. */
const REOPEN_MS = 100;

/** How long to wait before an attempt, counted from 1: longer each time, and not the same for all pages. */
export function pauseBefore(attempt: number, random: number): number {
  const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(attempt - 1, 10));
  return longest * (0.5 + random / 2);
}

export interface StreamOptions {
  /** The address of the feed. */
  readonly path: string;
  /** Called before the first connection, and again if it fails. */
  readonly prepare: (signal: AbortSignal) => Promise<void>;
  /** The last event that has arrived; 0 for none. */
  readonly lastId: () => number;
  readonly onEvents: (events: readonly FeedEvent[]) => void;
  readonly onLive: (live: Live) => void;
  /** Something has arrived, at this time. */
  readonly onContact: (at: number) => void;
}

export class FeedStream {
  readonly #options: StreamOptions;
  readonly #around: Surroundings;
  #connection: AbortController | null = null;
  #cancelPause: (() => void) | null = null;
  #cancelHidden: (() => void) | null = null;
  #unwatch: (() => void) | null = null;
  #unwatchPlaces: (() => void) | null = null;
  #prepared = false;
  #over = false;
  #attempt = 0;
  #heardAt = 0;

  constructor(options: StreamOptions, around: Surroundings) {
    this.#options = options;
    this.#around = around;
  }

  start(): void {
    if (this.#unwatch !== null) return;
    this.#unwatch = this.#around.watch(() => this.#look());
    this.#unwatchPlaces =
      this.#around.places?.onWanted(() => {
        if (!this.#over && !this.#around.isVisible()) this.#letGo();
      }) ?? null;
    this.#over = false;
    this.#connect();
    this.#look();
  }

  stop(): void {
    this.#unwatch?.();
    this.#unwatch = null;
    this.#unwatchPlaces?.();
    this.#unwatchPlaces = null;
    this.#cancelHidden?.();
    this.#cancelHidden = null;
    this.#disconnect();
  }

  /** Connect now instead of after the pause; also after a refusal. */
  retryNow(): void {
    if (this.#unwatch === null || this.#connection !== null) return;
    this.#over = false;
    this.#attempt = 0;
    this.#connect();
  }

  /** The page was shown or hidden, or the network came or went. */
  #look(): void {
    if (this.#over) return;
    if (!this.#around.isVisible()) {
      this.#cancelHidden ??= this.#around.after(HIDDEN_MS, () => this.#letGo());
      return;
    }
    this.#cancelHidden?.();
    this.#cancelHidden = null;
    if (this.#connection === null) this.#connect();
    else if (this.#around.now() - this.#heardAt > DOUBT_MS) {
      this.#disconnect();
      this.#connect();
    }
  }

  /** Nobody looks at the page: connect again when someone does. */
  #letGo(): void {
    this.#disconnect();
    this.#options.onLive({ kind: "paused" });
  }

  #disconnect(): void {
    this.#cancelPause?.();
    this.#cancelPause = null;
    this.#connection?.abort();
    this.#connection = null;
  }

  #connect(): void {
    this.#cancelPause?.();
    this.#cancelPause = null;
    const connection = new AbortController();
    this.#connection = connection;
    void this.#follow(connection).then(
      (next) => {
        if (this.#connection === connection) this.#after(next);
      },
      (error: unknown) => {
        if (this.#connection === connection) this.#failed(error);
      },
    );
  }

  /** One connection. Resolves if it has ended in order. */
  async #follow(connection: AbortController): Promise<"ended" | "again" | "without a place"> {
    const { signal } = connection;
    this.#heardAt = this.#around.now();
    const { places } = this.#around;
    const leave = places === undefined ? undefined : await places.take();
    if (leave === null) {
      if (!this.#around.isVisible()) return "without a place";
      places?.want();
    }
    let cancelWatch = () => {};
    const heard = () => {
      this.#heardAt = this.#around.now();
      cancelWatch();
      cancelWatch = this.#around.after(SILENCE_MS, () => connection.abort(new Error("nothing has arrived")));
    };
    try {
      if (signal.aborted) return "again";
      heard();
      if (!this.#prepared) {
        this.#options.onLive({ kind: "opening" });
        await this.#options.prepare(signal);
        this.#prepared = true;
      }
      const headers = { Accept: "text/event-stream", "Last-Event-ID": String(this.#options.lastId()) };
      const response = await this.#around.fetch(this.#options.path, { headers, signal, cache: "no-store" });
      if (response.status === 204) return "ended";
      const isFeed = response.headers.get("Content-Type")?.startsWith("text/event-stream");
      if (!response.ok || !isFeed || response.body === null) throw new Refused(response);
      heard();
      this.#options.onContact(this.#heardAt);
      this.#options.onLive({ kind: "live" });
      const heardSomething = () => {
        heard();
        this.#options.onContact(this.#heardAt);
      };
      const openedAt = this.#around.now();
      try {
        await this.#read(response.body, signal, heardSomething, leave === null);
      } finally {
        if (leave === null || this.#around.now() - openedAt >= STEADY_MS) this.#attempt = 0;
      }
      return leave === null ? "without a place" : "again";
    } finally {
      cancelWatch();
      leave?.();
    }
  }

  /** Read until the connection ends; or, if it is `brief`, for a moment. */
  async #read(body: ReadableStream<Uint8Array>, signal: AbortSignal, heard: () => void, brief: boolean): Promise<void> {
    let batch: FeedEvent[] = [];
    const parser = createParser({
      onEvent: ({ id, event, data }) => {
        if (!id || !event) return;
        const { turn, created_at, data: values } = JSON.parse(data);
        batch.push(readEvent({ id: Number(id), type: event, turn, created_at, data: values }));
      },
    });
    const decoder = new TextDecoder();
    const reader = body.getReader();
    const end = () => void reader.cancel().catch(() => {});
    const cancelEnd = brief ? this.#around.after(BRIEF_MS, end) : null;
    try {
      while (true) {
        const { done, value } = await reader.read();
        if (done || signal.aborted) return;
        heard();
        parser.feed(decoder.decode(value, { stream: true }));
        if (batch.length > 0) {
          this.#options.onEvents(batch);
          batch = [];
        }
      }
    } finally {
      cancelEnd?.();
      end();
    }
  }

  #after(next: "ended" | "again" | "without a place"): void {
    this.#connection = null;
    if (next === "without a place") {
      if (this.#around.isVisible()) this.#pause(BRIEF_PAUSE_MS, true);
      else this.#letGo();
      return;
    }
    if (next === "ended") {
      this.#finish({ kind: "ended" });
      return;
    }
    // The server stops, or the build is closed, or this page was too slow: the next answer tells.
    this.#attempt += 1;
    const pause = this.#attempt === 1 ? REOPEN_MS : pauseBefore(this.#attempt, this.#around.random());
    this.#pause(pause);
  }

  #failed(error: unknown): void {
    this.#connection = null;
    const status = error instanceof Refused ? error.status : 0;
    if (status === 401) {
      this.#finish({ kind: "signed out" });
    } else if (status === 404 || status === 422) {
      this.#finish({ kind: "not found" });
    } else {
      this.#attempt += 1;
      const least = error instanceof Refused ? error.retryAfter : 0;
      this.#pause(Math.max(least, pauseBefore(this.#attempt, this.#around.random())));
    }
  }

  #finish(live: Live): void {
    this.#over = true;
    this.#options.onLive(live);
  }

  /** Connect again later. The connection counts as lost meanwhile, unless it is `planned`. */
  #pause(milliseconds: number, planned = milliseconds <= REOPEN_MS): void {
    const retryAt = this.#around.now() + milliseconds;
    if (!planned) {
      const attempt = this.#attempt;
      this.#options.onLive(
        this.#around.isOnline() ? { kind: "reconnecting", attempt, retryAt } : { kind: "offline", retryAt },
      );
    }
    this.#cancelPause = this.#around.after(milliseconds, () => this.#connect());
  }
}
