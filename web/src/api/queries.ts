import { QueryClient, useQuery } from "@tanstack/react-query";
import { api, dataOf, Problem } from "./client.ts";

/** Whether to ask again: a refusal stays a refusal; an outage may pass. */
function retry(count: number, error: Error): boolean {
  return count < 3 && !(error instanceof Problem && error.status >= 400 && error.status < 500);
}

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: { retry, staleTime: 5_000, gcTime: 5 * 60_000 },
    mutations: { retry: false },
  },
});

/** Keys under which answers are kept. A page that changes something invalidates by the same keys. */
export const keys = {
  me: () => ["me"] as const,
  account: () => ["account"] as const,
  projects: () => ["projects"] as const,
  project: (id: string) => ["projects", id] as const,
  builds: () => ["builds"] as const,
  exports: () => ["exports"] as const,
  build: (id: string) => ["builds", id] as const,
  ofBuild: (id: string, part: string, ...more: unknown[]) => ["builds", id, part, ...more] as const,
};

/** Who is signed in, with scopes and organisations. */
export function useMe() {
  return useQuery({ queryKey: keys.me(), queryFn: () => dataOf(api.GET("/v1/me")), staleTime: 60_000 });
}

/** Plan, models, allowance and open builds of the user. */
export function useAccount() {
  return useQuery({ queryKey: keys.account(), queryFn: () => dataOf(api.GET("/v1/account")) });
}

/** One build as its row says; the feed says what happens in it. */
export function useBuild(id: string) {
  return useQuery({
    queryKey: keys.build(id),
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}", { params: { path: { build_id: id } } })),
  });
}
