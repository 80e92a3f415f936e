import { useEffect, useSyncExternalStore } from "react";
import { signedOut } from "../api/client.ts";
import { browser } from "./browser.ts";
import { FeedStore, type Snapshot } from "./store.ts";

const stores = new Map<string, FeedStore>();

/** The feed of a build. All parts of the page share one; feeds that nobody watches any more are let go. */
export function feedOf(buildId: string): FeedStore {
  const known = stores.get(buildId);
  if (known !== undefined) return known;
  for (const [id, store] of stores) if (store.isIdle) stores.delete(id);
  const store = new FeedStore(buildId, browser);
  stores.set(buildId, store);
  return store;
}

export interface BuildFeed extends Snapshot {
  /** Connect now instead of after the pause. */
  readonly retryNow: () => void;
  /** Load the page of events before the first one. */
  readonly loadOlder: () => Promise<void>;
  /** Load older pages until the event with this id is there. */
  readonly loadTo: (id: number) => Promise<void>;
}

/** Follow a build while the component is shown. Renders again after each batch of events, at most once a frame. */
export function useBuildFeed(buildId: string): BuildFeed {
  const store = feedOf(buildId);
  const snapshot = useSyncExternalStore(store.subscribe, store.snapshot);
  const isSignedOut = snapshot.live.kind === "signed out";
  useEffect(() => {
    if (isSignedOut) signedOut();
  }, [isSignedOut]);
  return { ...snapshot, retryNow: store.retryNow, loadOlder: store.loadOlder, loadTo: store.loadTo };
}
