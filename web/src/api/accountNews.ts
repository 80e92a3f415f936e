/**
 * Tells the pages of a browser when something about its user's builds has changed (`GET /v1/events`).
 *
 * One visible tab has the connection and tells the others, as a browser opens only six to an address. A tab that is
 * hidden passes it on. Without the stream, pages ask again every few seconds.
 */
import { createParser } from "eventsource-parser";
import { pauseBefore, SILENCE_MS } from "../feed/stream.ts";

const NAME = "cofounder-account-news";
const PATH = "/v1/events";
/** Changes within so long are one: an agent that writes changes its build twice a second. */
const GATHER_MS = 2_000;

type Message = "changed" | "alive";

/** Follows the account's stream while it is started, in whichever tab has its turn. */
export class AccountNews {
  readonly #changed: () => void;
  readonly #channel = new BroadcastChannel(NAME);
  readonly #onVisibility = () => this.#look();
  #turn: AbortController | null = null;
  #heardAt = 0;
  #gathering: ReturnType<typeof setTimeout> | undefined;

  /** `changed` is called at most every two seconds, and only while the tab is seen. */
  constructor(changed: () => void) {
    this.#changed = changed;
    this.#channel.addEventListener("message", ({ data }: MessageEvent<Message>) => this.#heard(data));
  }

  start(): void {
    document.addEventListener("visibilitychange", this.#onVisibility);
    this.#look();
  }

  stop(): void {
    document.removeEventListener("visibilitychange", this.#onVisibility);
    this.#turn?.abort();
    this.#turn = null;
    clearTimeout(this.#gathering);
    this.#channel.close();
  }

  /** Whether this tab, or another one, hears of changes at the moment. */
  isLive(): boolean {
    return Date.now() - this.#heardAt < SILENCE_MS;
  }

  #look(): void {
    if (document.hidden) {
      this.#turn?.abort();
      this.#turn = null;
    } else if (this.#turn === null && navigator.locks !== undefined) {
      const turn = new AbortController();
      this.#turn = turn;
      navigator.locks
        .request(NAME, { signal: turn.signal }, () => this.#follow(turn.signal))
        .catch(() => {
          // The tab was hidden or left before its turn came.
        });
    }
  }

  /** Connect, and again whenever the connection is lost, until the tab is hidden or the API refuses. */
  async #follow(signal: AbortSignal): Promise<void> {
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      const connection = new AbortController();
      const end = () => connection.abort();
      signal.addEventListener("abort", end);
      try {
        const isRefused = await this.#read(connection, () => {
          attempt = 0;
        });
        if (isRefused) return;
      } catch {
        // The connection is lost. The next one begins after a pause.
      } finally {
        signal.removeEventListener("abort", end);
        connection.abort();
      }
      await pause(pauseBefore(attempt + 1, Math.random()), signal);
    }
  }

  /** One connection, until it ends. Returns whether the API does not want another. */
  async #read(connection: AbortController, onAlive: () => void): Promise<boolean> {
    const { signal } = connection;
    let silence = setTimeout(() => connection.abort(), SILENCE_MS);
    const alive = () => {
      clearTimeout(silence);
      silence = setTimeout(() => connection.abort(), SILENCE_MS);
      onAlive();
      this.#tell("alive");
    };
    try {
      const headers = { Accept: "text/event-stream" };
      const response = await fetch(PATH, { headers, signal, cache: "no-store", credentials: "same-origin" });
      if ([401, 403, 404].includes(response.status)) return true;
      const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
      if (!response.ok || !isStream || response.body === null) return false;
      alive();
      // Nothing is replayed: what has changed before the connection was there is read once.
      this.#tell("changed");
      const parser = createParser({ onEvent: () => this.#tell("changed") });
      const decoder = new TextDecoder();
      const reader = response.body.getReader();
      while (true) {
        const { done, value } = await reader.read();
        if (done) return false;
        alive();
        parser.feed(decoder.decode(value, { stream: true }));
      }
    } finally {
      clearTimeout(silence);
    }
  }

  #tell(message: Message): void {
    if (this.#turn === null) return;
    this.#channel.postMessage(message);
    this.#heard(message);
  }

  #heard(message: Message): void {
    this.#heardAt = Date.now();
    // A tab that is not seen reads when it is.
    if (message !== "changed" || this.#gathering !== undefined || document.hidden) return;
    this.#gathering = setTimeout(() => {
      this.#gathering = undefined;
      this.#changed();
    }, GATHER_MS);
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
