/** What the build's page uses of the feed. */

export { Feed, type FeedProps } from "../pages/build/Feed.tsx";
export { LiveState } from "../pages/build/LiveState.tsx";
export type { EventOf, FeedEvent } from "./events.ts";
export { showEvent } from "./showEvent.ts";
export { type Entry, type FeedState, isClosed, type PreviewState } from "./state.ts";
export type { Live } from "./stream.ts";
export { type BuildFeed, useBuildFeed } from "./useBuildFeed.ts";
