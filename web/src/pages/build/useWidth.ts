import { useSyncExternalStore } from "react";

export type Width = "phone" | "tablet" | "desktop";

const QUERIES: [Width, MediaQueryList][] = [
  ["phone", matchMedia("(max-width: 39.99rem)")],
  ["tablet", matchMedia("(max-width: 63.99rem)")],
];

const subscribe = (changed: () => void) => {
  for (const [, query] of QUERIES) query.addEventListener("change", changed);
  return () => {
    for (const [, query] of QUERIES) query.removeEventListener("change", changed);
  };
};

/** How wide the window is: which parts of the page fit beside each other. */
export function useWidth(): Width {
  return useSyncExternalStore(subscribe, () => QUERIES.find(([, query]) => query.matches)?.[0] ?? "desktop");
}
