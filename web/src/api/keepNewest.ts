import type { QueryClient } from "@tanstack/react-query";

/** Forget answers that no part of the page uses, apart from the newest `most`, of those whose keys begin with `queryKey`. */
export function keepNewest(client: QueryClient, queryKey: readonly unknown[], most: number): void {
  const cache = client.getQueryCache();
  const unused = cache.findAll({ queryKey, type: "inactive" });
  unused.sort((one, other) => other.state.dataUpdatedAt - one.state.dataUpdatedAt);
  for (const query of unused.slice(most)) cache.remove(query);
}
