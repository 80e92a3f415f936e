import { queryOptions, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { api, dataOf, Problem, type Schemas } from "../../../api/client.ts";
import { keys, queryClient } from "../../../api/queries.ts";

const of = (build: string) => ({ params: { path: { build_id: build } } });

/** Milliseconds after which a preview is asked for again, by its state. The feed ends before the preview opens. */
const ASKED_AGAIN: Record<string, number> = { opening: 2_000, open: 30_000, closed: 30_000, failed: 30_000 };

/**
 * The build's preview; null if there is none. Asked for as long as it is shown.
 *
 * @param isExpected whether the build has just become ready, so that its preview is about to open.
 */
export function usePreview(build: string, isReady: boolean, isExpected: boolean) {
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
    refetchInterval: ({ state }) =>
      state.data ? (ASKED_AGAIN[state.data.state] ?? 30_000) : isExpected ? 2_000 : 30_000,
  });
}

const snapshotsOf = (build: string) =>
  queryOptions({
    queryKey: keys.ofBuild(build, "snapshots"),
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}/snapshots", of(build))),
  });

/** Snapshots that can be had, the current one first. */
export function useSnapshots(build: string) {
  return useQuery({ ...snapshotsOf(build), refetchInterval: 30_000 });
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

/** Files that one answer lists; a workspace of more is listed up to here. */
const FILES_MOST = 5_000;

/** The files of a snapshot, by its number or `latest`; null if there is none. */
export function useSnapshotFiles(build: string, number: string) {
  return useQuery({
    queryKey: keys.ofBuild(build, "files", number),
    queryFn: async () => {
      // A browser reports each 404 as an error: do not ask before the first snapshot.
      if (number === "latest" && (await queryClient.fetchQuery(snapshotsOf(build))).snapshots.length === 0) return null;
      try {
        return await dataOf(
          api.GET("/v1/builds/{build_id}/snapshots/{number}/files", {
            params: { path: { build_id: build, number }, query: { limit: FILES_MOST } },
          }),
        );
      } catch (error) {
        if (error instanceof Problem && error.status === 404) return null;
        throw error;
      }
    },
    ...(number === "latest" ? { refetchInterval: 30_000 } : { staleTime: Number.POSITIVE_INFINITY }),
  });
}

/** A file of a snapshot as text. */
export function useSnapshotFile(build: string, number: number | undefined, path: string | undefined) {
  return useQuery({
    queryKey: keys.ofBuild(build, "file", number, path),
    enabled: number !== undefined && path !== undefined,
    queryFn: () =>
      dataOf(
        api.GET("/v1/builds/{build_id}/snapshots/{number}/file", {
          params: { path: { build_id: build, number: String(number) }, query: { path: path ?? "" } },
        }),
      ),
    staleTime: Number.POSITIVE_INFINITY,
  });
}

/** The address of a file's bytes. */
export function contentAddress(build: string, number: number, path: string): string {
  const query = new URLSearchParams({ path });
  return `/v1/builds/${encodeURIComponent(build)}/snapshots/${number}/file/content?${query}`;
}

/** The phases that have ended, with how much each has changed. */
export function usePhases(build: string, isEnded: boolean) {
  return useQuery({
    queryKey: keys.ofBuild(build, "phases"),
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}/phases", of(build))),
    refetchInterval: isEnded ? false : 15_000,
  });
}

export type DiffData = Omit<Schemas["PhaseDiffOut"], "phase">;

/**
 * What a phase has changed, or the build as a whole.
 *
 * @param upTo the last phase whose changes are stored: the changes of the whole build are other ones after the next.
 * @param isStored whether there are changes to read.
 */
export function useDiff(build: string, phase: number | "whole", upTo: number | undefined, isStored: boolean) {
  return useQuery({
    queryKey: keys.ofBuild(build, "diff", phase, phase === "whole" ? upTo : undefined),
    enabled: isStored,
    queryFn: (): Promise<DiffData> =>
      phase === "whole"
        ? dataOf(api.GET("/v1/builds/{build_id}/diff", of(build)))
        : dataOf(
            api.GET("/v1/builds/{build_id}/phases/{number}/diff", {
              params: { path: { build_id: build, number: phase } },
            }),
          ),
    staleTime: Number.POSITIVE_INFINITY,
  });
}
