import { keepPreviousData, useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import type { FleetQuery } from "./filter.ts";

export type Build = Schemas["FleetBuildOut"];
export type BulkRun = Schemas["BulkRunOut"];
export type BulkAct = Schemas["BulkAct"];

/** How often what is seen is asked for again, in milliseconds. A hidden tab asks for nothing. */
export const POLL_MS = 5_000;
const RUN_POLL_MS = 1_500;

/** Builds of one request. */
const PAGE = 100;
/** With more pages than this, the list is asked for again less often, so that it is no more requests. */
const PAGES_PER_POLL = 3;

/** Keys under which answers are kept. */
export const keys = {
  all: ["fleet"] as const,
  fleet: ["fleet", "fleet"] as const,
  builds: ["fleet", "builds"] as const,
  runs: ["fleet", "runs"] as const,
  controls: ["fleet", "controls"] as const,
};

/** All builds and what they depend on, in figures. */
export function useFleet() {
  return useQuery({
    queryKey: keys.fleet,
    queryFn: () => dataOf(api.GET("/v1/ops/fleet")),
    refetchInterval: POLL_MS,
  });
}

/** The builds of a filter, page by page. Those of the last filter stay until the new ones are there. */
export function useBuilds(query: FleetQuery) {
  return useInfiniteQuery({
    queryKey: [...keys.builds, query],
    queryFn: ({ pageParam }) =>
      dataOf(
        api.GET("/v1/ops/builds", {
          params: { query: { ...query, limit: PAGE, ...(pageParam === undefined ? {} : { cursor: pageParam }) } },
        }),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next_cursor ?? undefined,
    placeholderData: keepPreviousData,
    refetchInterval: ({ state }) => POLL_MS * Math.max(1, Math.ceil((state.data?.pages.length ?? 1) / PAGES_PER_POLL)),
  });
}

/** The latest acts on many builds; often asked for while one is under way. */
export function useRuns() {
  return useQuery({
    queryKey: keys.runs,
    queryFn: () => dataOf(api.GET("/v1/ops/bulk", { params: { query: { limit: 20 } } })),
    refetchInterval: ({ state }) => (state.data?.runs.some(({ state }) => state === "running") ? RUN_POLL_MS : POLL_MS),
  });
}

/** The key under which a user's account is kept. */
export function accountKey(user: string) {
  return ["fleet", "users", user] as const;
}

/** What makes a request one for a user: an operator may make it. */
export function forUser(user: string) {
  return { header: { "x-cofounder-user": user } };
}

/** Changes a user's account, and shows it as it is then. */
export function useChangeAccount(user: string) {
  const client = useQueryClient();
  return async (body: Schemas["AccountChange"]) => {
    const account = await dataOf(api.PATCH("/v1/account", { params: forUser(user), body }));
    client.setQueryData(accountKey(user), account);
    await client.invalidateQueries({ queryKey: keys.builds });
  };
}
