import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { api, dataOf, Problem } from "../../../api/client.ts";
import { keys } from "../../../api/queries.ts";

const of = (build: string) => ({ params: { path: { build_id: build } } });

/** Milliseconds after which a preview is asked for again, by its state. The feed ends before the preview opens. */
const ASKED_AGAIN: Record<string, number> = { opening: 2_000, open: 30_000, closed: 30_000, failed: 30_000 };

/** The build's preview; null before there is one. Asked for as long as it is shown. */
export function usePreview(build: string, isReady: boolean) {
  return useQuery({
    queryKey: keys.ofBuild(build, "preview"),
    enabled: isReady,
    queryFn: async () => {
      try {
        return await dataOf(api.GET("/v1/builds/{build_id}/preview", of(build)));
      } catch (error) {
        if (error instanceof Problem && error.status === 404) return null;
        throw error;
      }
    },
    refetchInterval: ({ state }) => (state.data ? (ASKED_AGAIN[state.data.state] ?? 30_000) : 2_000),
  });
}

/** Snapshots that can be had, the current one first. */
export function useSnapshots(build: string) {
  return useQuery({
    queryKey: keys.ofBuild(build, "snapshots"),
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}/snapshots", of(build))),
    refetchInterval: 30_000,
  });
}

/** Screenshots, the newest first, a page at a time. */
export function useScreenshots(build: string) {
  return useInfiniteQuery({
    queryKey: keys.ofBuild(build, "screenshots"),
    queryFn: ({ pageParam }) =>
      dataOf(
        api.GET("/v1/builds/{build_id}/screenshots", {
          params: { path: { build_id: build }, query: { limit: 50, before: pageParam } },
        }),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_before ?? undefined,
    refetchInterval: 30_000,
  });
}
