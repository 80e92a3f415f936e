/** The browser that this page runs in, for `stream.ts`. */

import { browserPlaces } from "./places.ts";
import type { Surroundings } from "./stream.ts";

/** Pictures are not drawn while the page is hidden; what waits for one is done after so many milliseconds then. */
const HIDDEN_FRAME_MS = 250;

export const browser: Surroundings = {
  places: browserPlaces(),
  fetch: (path, init) => fetch(path, { ...init, credentials: "same-origin" }),
  now: () => Date.now(),
  random: () => Math.random(),
  after(milliseconds, callback) {
    const timer = setTimeout(callback, milliseconds);
    return () => clearTimeout(timer);
  },
  nextFrame(callback) {
    if (document.hidden) setTimeout(callback, HIDDEN_FRAME_MS);
    else requestAnimationFrame(() => callback());
  },
  isVisible: () => !document.hidden,
  isOnline: () => navigator.onLine,
  watch(callback) {
    document.addEventListener("visibilitychange", callback);
    const events = ["online", "offline", "pageshow"] as const;
    for (const name of events) addEventListener(name, callback);
    return () => {
      document.removeEventListener("visibilitychange", callback);
      for (const name of events) removeEventListener(name, callback);
    };
  },
};
