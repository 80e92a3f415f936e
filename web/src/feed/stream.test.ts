import assert from "node:assert/strict";
import { test } from "node:test";
import type { FeedEvent } from "./events.ts";
import { PLACES, type Places, placesOver } from "./places.ts";
import { FeedStore, PAGE, TAIL } from "./store.ts";
import {
  BRIEF_MS,
  BRIEF_PAUSE_MS,
  DOUBT_MS,
  FeedStream,
  HIDDEN_MS,
  type Live,
  LONGEST_PAUSE_MS,
  pauseBefore,
  SILENCE_MS,
  STEADY_MS,
  type Surroundings,
} from "./stream.ts";

type Handler = (path: string, init: RequestInit) => Response | Promise<Response>;

/** A browser whose clock stands still until `pass`. */
class Browser implements Surroundings {
  time = 1_000_000;
  visible = true;
  online = true;
  requests: { path: string; lastId: string | null }[] = [];
  handler: Handler;
  places?: Places;
  #timers: { at: number; callback: () => void }[] = [];
  #watchers = new Set<() => void>();

  constructor(handler: Handler, places?: Places) {
    this.handler = handler;
    this.places = places;
  }

  async fetch(path: string, init: RequestInit): Promise<Response> {
    this.requests.push({ path, lastId: new Headers(init.headers).get("Last-Event-ID") });
    return this.handler(path, init);
  }
  now = () => this.time;
  random = () => 1;
  isVisible = () => this.visible;
  isOnline = () => this.online;
  nextFrame = (callback: () => void) => queueMicrotask(callback);

  after(milliseconds: number, callback: () => void): () => void {
    const timer = { at: this.time + milliseconds, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((each) => each !== timer);
    };
  }

  watch(callback: () => void): () => void {
    this.#watchers.add(callback);
    return () => this.#watchers.delete(callback);
  }

  look(visible = this.visible): void {
    this.visible = visible;
    for (const callback of this.#watchers) callback();
  }

  /** Let so many milliseconds pass, with what happens in them. */
  async pass(milliseconds: number): Promise<void> {
    const end = this.time + milliseconds;
    await settle();
    while (true) {
      const next = this.#timers.sort((one, other) => one.at - other.at)[0];
      if (next === undefined || next.at > end) break;
      this.#timers.shift();
      this.time = Math.max(this.time, next.at);
      next.callback();
      await settle();
    }
    this.time = end;
  }
}

const settle = () => new Promise<void>((resolve) => setTimeout(resolve, 5));

function block(id: number): string {
  const data = { turn: 1, created_at: "2026-11-24T12:00:00Z", data: { text: `Event ${id}: drei ✓`, claim: "a" } };
  return `id: ${id}\nevent: narration\ndata: ${JSON.stringify(data)}\n\n`;
}

/** A feed that stays open until `end`, `fail`, or its request is given up. */
class OpenFeed {
  readonly response: Response;
  #controller!: ReadableStreamDefaultController<Uint8Array>;

  constructor(init: RequestInit) {
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller;
      },
    });
    init.signal?.addEventListener("abort", () => this.fail());
    this.response = new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }
  send(text: string) {
    this.#controller.enqueue(new TextEncoder().encode(text));
  }
  sendBytes(bytes: Uint8Array) {
    this.#controller.enqueue(bytes);
  }
  end() {
    this.#controller.close();
  }
  fail() {
    try {
      this.#controller.error(new TypeError("network error"));
    } catch {
      // It has ended already.
    }
  }
}

function following(handler: Handler, places?: Places) {
  const browser = new Browser(handler, places);
  const events: FeedEvent[] = [];
  const lives: Live[] = [];
  const stream = new FeedStream(
    {
      path: "/feed",
      prepare: async () => {},
      lastId: () => events.at(-1)?.id ?? 0,
      onEvents: (batch) => events.push(...batch),
      onLive: (live) => lives.push(live),
      onContact: () => {},
    },
    browser,
  );
  stream.start();
  return { browser, events, lives, stream, live: () => lives.at(-1)?.kind };
}

test("events arrive whole, however their bytes are cut, and the feed ends with a 204", async () => {
  let feed!: OpenFeed;
  const { browser, events, live } = following((_, init) => {
    if (feed !== undefined) return new Response(null, { status: 204 });
    feed = new OpenFeed(init);
    return feed.response;
  });
  await settle();
  assert.equal(live(), "live");
  feed.send("retry: 2000\n\n: ping\n\n");
  for (const byte of new TextEncoder().encode(block(1) + block(2))) feed.sendBytes(Uint8Array.of(byte));
  await settle();
  assert.deepEqual(
    events.map((event) => event.type === "narration" && event.data.text),
    ["Event 1: drei ✓", "Event 2: drei ✓"],
  );
  feed.end();
  await browser.pass(200);
  assert.equal(live(), "ended");
  await browser.pass(600_000);
  assert.deepEqual(
    browser.requests.map((request) => request.lastId),
    ["0", "2"],
  );
});

test("a lost connection is opened again after the last event, for ever and ever more slowly", async () => {
  let feeds: OpenFeed[] = [];
  let isDown = false;
  const { browser, events, lives, live, stream } = following((_, init) => {
    if (isDown) throw new TypeError("Failed to fetch");
    const feed = new OpenFeed(init);
    feeds = [...feeds, feed];
    return feed.response;
  });
  await settle();
  feeds[0]?.send(block(1));
  await settle();
  isDown = true;
  feeds[0]?.fail();
  await settle();
  assert.equal(live(), "reconnecting");
  await browser.pass(600_000);
  assert(browser.requests.length > 40, `${browser.requests.length} attempts in ten minutes`);
  const last = lives.at(-1);
  assert(last?.kind === "reconnecting" && last.retryAt - browser.time <= LONGEST_PAUSE_MS);
  browser.online = false;
  await browser.pass(LONGEST_PAUSE_MS);
  assert.equal(live(), "offline");
  isDown = false;
  stream.retryNow();
  await settle();
  assert.equal(live(), "live");
  assert.equal(browser.requests.at(-1)?.lastId, "1");
  feeds[1]?.send(block(2));
  await settle();
  assert.deepEqual(
    events.map((event) => event.id),
    [1, 2],
  );
});

test("connections that end in order at once are opened ever more slowly, until one lasts", async () => {
  let feed!: OpenFeed;
  let isSteady = false;
  const { browser, lives } = following((_, init) => {
    feed = new OpenFeed(init);
    feed.send(": ping\n\n");
    if (!isSteady) feed.end();
    return feed.response;
  });
  await browser.pass(60_000);
  assert(browser.requests.length < 15, `${browser.requests.length} requests in a minute`);
  assert.equal(lives.at(-1)?.kind, "reconnecting");
  isSteady = true;
  await browser.pass(LONGEST_PAUSE_MS + STEADY_MS);
  const before = browser.requests.length;
  feed.end();
  await browser.pass(200);
  assert.equal(browser.requests.length, before + 1, "one that has lasted is opened again at once");
});

test("a connection that hangs is given up, and one that only has heartbeats is not", async () => {
  const feeds: OpenFeed[] = [];
  const { browser, live } = following((_, init) => {
    feeds.push(new OpenFeed(init));
    return feeds.at(-1)?.response as Response;
  });
  for (let each = 0; each < 10; each++) {
    await browser.pass(15_000);
    feeds[0]?.send(": ping\n\n");
  }
  await settle();
  assert.equal(feeds.length, 1);
  await browser.pass(SILENCE_MS - 1000);
  assert.equal(feeds.length, 1);
  await browser.pass(2000);
  assert.equal(feeds.length, 2);
  assert.equal(live(), "live");
});

test("a hidden page lets go after a minute and connects when it is looked at", async () => {
  const { browser, live } = following((_, init) => new OpenFeed(init).response);
  await browser.pass(1000);
  browser.look(false);
  await browser.pass(HIDDEN_MS / 2);
  browser.look(true);
  await browser.pass(1000);
  browser.look(false);
  await browser.pass(HIDDEN_MS - 1000);
  assert.notEqual(live(), "paused");
  await browser.pass(2000);
  assert.equal(live(), "paused");
  const before = browser.requests.length;
  await browser.pass(600_000);
  assert.equal(browser.requests.length, before);
  browser.look(true);
  await settle();
  assert.equal(live(), "live");
});

test("after the computer has slept, the connection is not trusted", async () => {
  const { browser } = following((_, init) => new OpenFeed(init).response);
  await browser.pass(1000);
  browser.look();
  await settle();
  assert.equal(browser.requests.length, 1);
  browser.time += DOUBT_MS + 1; // no timer runs while it sleeps
  browser.look();
  await settle();
  assert.equal(browser.requests.length, 2);
});

test("a page that is looked at does not wait for the end of a pause", async () => {
  const { browser } = following(() => {
    throw new TypeError("Failed to fetch");
  });
  await browser.pass(60_000);
  const before = browser.requests.length;
  browser.look();
  await settle();
  assert.equal(browser.requests.length, before + 1);
});

test("refusals: signed out and not found stay, others are asked again when the API says", async () => {
  for (const [status, kind] of [
    [401, "signed out"],
    [404, "not found"],
  ] as const) {
    const { browser, live } = following(() => new Response("{}", { status }));
    await browser.pass(600_000);
    browser.look();
    await settle();
    assert.equal(live(), kind);
    assert.equal(browser.requests.length, 1);
  }
  const { browser, lives } = following(() => new Response("{}", { status: 429, headers: { "Retry-After": "33" } }));
  await settle();
  const last = lives.at(-1);
  assert(last?.kind === "reconnecting");
  assert.equal(last.retryAt - browser.time, 33_000);
  const proxy = following(() => new Response("<html>", { headers: { "Content-Type": "text/html" } }));
  await settle();
  assert.equal(proxy.live(), "reconnecting");
});

test("pauses grow to their longest and differ", () => {
  assert.deepEqual(
    [1, 2, 3, 6, 50].map((attempt) => pauseBefore(attempt, 1)),
    [500, 1000, 2000, LONGEST_PAUSE_MS, LONGEST_PAUSE_MS],
  );
  assert.equal(pauseBefore(50, 0), LONGEST_PAUSE_MS / 2);
});

/** An API with a feed of so many events; those after `tailAt` come by the stream. */
function apiWith(count: number, statusAt: number) {
  const sent = (id: number) => ({
    id,
    type: id === statusAt ? "status" : "narration",
    turn: 1,
    created_at: "2026-11-24T12:00:00Z",
    data: id === statusAt ? { status: "checks" } : { text: `Event ${id}.`, claim: "a" },
  });
  const feeds: OpenFeed[] = [];
  const state = { isDown: false, feeds, count };
  const handler: Handler = (path, init) => {
    if (state.isDown) throw new TypeError("Failed to fetch");
    const url = new URL(path, "http://api");
    if (url.pathname.endsWith("/events")) {
      const feed = new OpenFeed(init);
      feeds.push(feed);
      return feed.response;
    }
    const limit = Number(url.searchParams.get("limit"));
    const before = Number(url.searchParams.get("before") ?? state.count + 1);
    const types = url.searchParams.getAll("type");
    const all = Array.from({ length: before - 1 }, (_, index) => sent(before - 1 - index));
    const fitting = types.length === 0 ? all : all.filter((event) => types.includes(event.type));
    const page = fitting.slice(0, limit);
    return Response.json({ events: page, next_before: fitting.length > limit ? page.at(-1)?.id : null });
  };
  return { browser: new Browser(handler), state };
}

test("a store loads the newest events, the status before them, and older pages on demand", async () => {
  const { browser, state } = apiWith(2000, 3);
  const store = new FeedStore("b", browser);
  let changes = 0;
  const leave = store.subscribe(() => {
    changes += 1;
  });
  await settle();
  assert.deepEqual(
    [store.snapshot().firstId, store.snapshot().lastId, store.snapshot().isComplete],
    [2001 - TAIL, 2000, false],
  );
  assert.equal(store.snapshot().state.status, "checks");
  assert.equal(browser.requests.at(-1)?.lastId, "2000");
  const before = changes;
  state.feeds[0]?.send(block(2001) + block(2002));
  state.feeds[0]?.send(block(2002) + block(2003));
  await settle();
  assert(changes - before <= 2, "a batch is one change");
  assert.equal(store.snapshot().lastId, 2003);
  await Promise.all([store.loadOlder(), store.loadOlder()]);
  assert.equal(store.snapshot().count, TAIL + PAGE + 3);
  state.isDown = true;
  await store.loadOlder();
  assert.equal(store.snapshot().history, "failed");
  state.isDown = false;
  await store.loadTo(5);
  const { state: build, count, firstId, isComplete } = store.snapshot();
  assert.deepEqual([count, firstId, isComplete, build.status], [2003, 1, true, "checks"]);
  assert.deepEqual(
    build.entries.map((entry) => entry.event.id),
    Array.from({ length: 2003 }, (_, index) => index + 1),
  );
  leave();
  await browser.pass(2000);
  state.feeds[0]?.fail();
  const requests = browser.requests.length;
  await browser.pass(60_000);
  assert.equal(browser.requests.length, requests, "nobody watches any more");
});

test("older pages can be asked for before the stream is open", async () => {
  const { browser } = apiWith(2000, 3);
  const store = new FeedStore("b", browser);
  let isAsked = false;
  await new Promise<void>((resolve) => {
    store.subscribe(() => {
      if (isAsked || store.snapshot().count === 0) return;
      isAsked = true;
      void store.loadTo(5).then(resolve);
    });
  });
  assert.equal(store.snapshot().firstId, 1);
});

test("a listener may ask for the next page as soon as one is there", async () => {
  const { browser } = apiWith(2000, 3);
  const store = new FeedStore("b", browser);
  store.subscribe(() => {
    if (store.snapshot().history === "idle" && store.snapshot().count > 0) void store.loadOlder();
  });
  for (let turn = 0; turn < 20 && !store.snapshot().isComplete; turn++) await settle();
  assert.deepEqual([store.snapshot().count, store.snapshot().isComplete], [2000, true]);
});

test("a store that could not be opened goes on trying", async () => {
  const { browser, state } = apiWith(10, 1);
  state.isDown = true;
  const store = new FeedStore("b", browser);
  store.subscribe(() => {});
  await settle();
  assert.equal(store.snapshot().live.kind, "reconnecting");
  state.isDown = false;
  await browser.pass(20_000);
  assert.equal(store.snapshot().live.kind, "live");
  assert.deepEqual([store.snapshot().count, store.snapshot().isComplete], [10, true]);
});

/** Places of which so many are free. */
class SomePlaces implements Places {
  free: number;
  wanted = 0;
  #asked = () => {};

  constructor(free: number) {
    this.free = free;
  }
  async take() {
    if (this.free === 0) return null;
    this.free -= 1;
    return () => {
      this.free += 1;
    };
  }
  want() {
    this.wanted += 1;
  }
  onWanted(callback: () => void) {
    this.#asked = callback;
    return () => {};
  }
  /** Another tab asks for a place. */
  ask() {
    this.#asked();
  }
}

test("a feed without a place opens its connection for a moment, again and again, until one is free", async () => {
  const places = new SomePlaces(0);
  const feeds: OpenFeed[] = [];
  const { browser, events, live, stream } = following((_, init) => {
    feeds.push(new OpenFeed(init));
    return (feeds.at(-1) as OpenFeed).response;
  }, places);
  await browser.pass(0);
  feeds[0]?.send(block(1));
  await browser.pass(BRIEF_MS);
  assert.equal(feeds.length, 1);
  await browser.pass(BRIEF_PAUSE_MS);
  feeds[1]?.send(block(2));
  await browser.pass(BRIEF_MS);
  assert.deepEqual(
    events.map(({ id }) => id),
    [1, 2],
  );
  assert.equal(browser.requests.at(-1)?.lastId, "1");
  assert.equal(live(), "live");
  assert.equal(places.wanted, 2);
  places.free = 1;
  await browser.pass(BRIEF_PAUSE_MS);
  assert.equal(places.free, 0);
  await browser.pass(2 * BRIEF_PAUSE_MS);
  assert.equal(feeds.length, 3);
  stream.stop();
  await browser.pass(0);
  assert.equal(places.free, 1);
});

test("a page that nobody looks at leaves its place to one that asks, and connects again when it is looked at", async () => {
  const places = new SomePlaces(1);
  const { browser, live } = following((_, init) => new OpenFeed(init).response, places);
  await browser.pass(0);
  places.ask();
  await browser.pass(0);
  assert.equal(live(), "live");
  browser.look(false);
  places.ask();
  await browser.pass(0);
  assert.deepEqual([live(), places.free], ["paused", 1]);
  places.free = 0;
  browser.look(true);
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
  browser.look(false);
  await browser.pass(BRIEF_MS + BRIEF_PAUSE_MS);
  assert.deepEqual([live(), browser.requests.length], ["paused", 2]);
});

test("the tabs of a browser share its places, and a place that is left is free", async () => {
  const channels = [new BroadcastChannel("places"), new BroadcastChannel("places")] as const;
  const [one, other] = [placesOver(channels[0]), placesOver(channels[1])];
  const taken = [];
  for (let number = 0; number < PLACES; number++) taken.push(await (number % 2 === 0 ? one : other).take());
  assert.ok(taken.every((leave) => leave !== null));
  assert.equal(await one.take(), null);
  const asked = new Promise<void>((resolve) => other.onWanted(resolve));
  one.want();
  await asked;
  taken[0]?.();
  let again = null;
  while (again === null) again = await other.take(); // a lock is free a moment after it is left
  for (const leave of [...taken.slice(1), again]) leave?.();
  for (const channel of channels) channel.close();
});
