import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useRef } from "react";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { keys, useMe } from "../../api/queries.ts";
import type { useBuildFeed } from "../../feed/index.ts";
import { isEnded } from "../../parts/Status.tsx";

export type Build = Schemas["BuildOut"];
export type BuildFeed = ReturnType<typeof useBuildFeed>;

const HIDDEN_MS = 30_000;
const SHOWN_MS = 60_000;

const at = (id: string) => ({ params: { path: { build_id: id } } });

/** The build's row. The feed says when to read it again; now and then it is read without that, also in a hidden tab. */
export function useBuildRow(id: string) {
  return useQuery({
    queryKey: keys.build(id),
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}", at(id))),
    refetchInterval: ({ state }) => {
      if (state.data !== undefined && isEnded(state.data.status)) return false;
      return document.hidden ? HIDDEN_MS : SHOWN_MS;
    },
    refetchIntervalInBackground: true,
  });
}

/** Its counts, phases, checks and sleeps. */
export function useProgress(id: string) {
  return useQuery({
    queryKey: keys.ofBuild(id, "progress"),
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}/progress", at(id))),
  });
}

/** Its phases with how much each has changed. */
export function usePhases(id: string) {
  return useQuery({
    queryKey: keys.ofBuild(id, "phases"),
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}/phases", at(id))),
  });
}

/** Its kept snapshots, the current one first. */
export function useSnapshots(id: string) {
  return useQuery({
    queryKey: keys.ofBuild(id, "snapshots"),
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}/snapshots", at(id))),
  });
}

/** The messages of its founders. */
export function useMessages(id: string) {
  return useQuery({
    queryKey: keys.ofBuild(id, "messages"),
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}/messages", at(id))),
  });
}

const MARKS = [
  "phase_completed",
  "gate_started",
  "resumed",
  "restore_asked",
  "restore_done",
  "restore_failed",
] as const;

/** The events that the page points at: where phases end and checks begin, what was restored. Newest first. */
export function useMarks(id: string) {
  return useQuery({
    queryKey: keys.ofBuild(id, "marks"),
    queryFn: () =>
      dataOf(
        api.GET("/v1/builds/{build_id}/past-events", {
          params: { path: { build_id: id }, query: { type: [...MARKS], limit: 500 } },
        }),
      ),
  });
}

/** What has to be read again after an event of a type. */
const PARTS: Record<string, readonly string[]> = {
  status: ["row", "progress"],
  ready: ["row", "progress", "snapshots"],
  model: ["row"],
  question: ["row"],
  answer: ["row", "messages"],
  message: ["messages"],
  messages_read: ["messages"],
  message_withdrawn: ["messages"],
  turn_answered: ["row"],
  budget: ["row"],
  tool_done: ["progress"],
  phase_completed: ["progress", "marks", "snapshots", "phases"],
  gate_started: ["progress", "marks"],
  gate_passed: ["progress"],
  gate_bounced: ["progress"],
  product_judged: ["row"],
  snapshot_stored: ["snapshots", "phases"],
  resumed: ["marks", "row"],
  restore_asked: ["marks"],
  restore_done: ["marks", "snapshots", "progress", "phases"],
  restore_failed: ["marks"],
};
/** Types of which many come in a row. What they change is read again at most this often. */
const FREQUENT: ReadonlySet<string> = new Set(["turn_answered", "tool_done"]);
const FREQUENT_MS = 4_000;

/** Of the newest entries, this many are looked through for news: a call that ends late has an entry further up. */
const LOOKED_THROUGH = 400;

/**
 * Read again what new events of the feed have changed.
 * `since`: the last event when the row was read first; what follows it is news.
 */
export function useFollow(id: string, feed: BuildFeed, since: number | undefined): void {
  const client = useQueryClient();
  const seen = useRef<number | undefined>(undefined);
  const later = useRef(new Set<string>());
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);

  useEffect(() => {
    seen.current ??= since;
    const { lastId, entries } = feed.state;
    if (seen.current === undefined || lastId <= seen.current) return;
    const read = async (part: string) => {
      const query = { queryKey: part === "row" ? keys.build(id) : keys.ofBuild(id, part), exact: true };
      // A first answer that is on its way may be older than the event, and would count as the answer to both.
      await client.cancelQueries(query);
      await client.invalidateQueries(query);
    };
    const now = new Set<string>();
    for (const entry of entries.slice(-LOOKED_THROUGH)) {
      const event = entry.done ?? entry.event;
      if (event.id <= seen.current) continue;
      for (const part of PARTS[event.type] ?? []) (FREQUENT.has(event.type) ? later.current : now).add(part);
    }
    seen.current = lastId;
    for (const part of now) {
      later.current.delete(part);
      void read(part);
    }
    if (later.current.size > 0 && timer.current === undefined) {
      timer.current = setTimeout(() => {
        timer.current = undefined;
        for (const part of later.current) void read(part);
        later.current.clear();
      }, FREQUENT_MS);
    }
  }, [client, id, feed.state, since]);

  useEffect(() => () => clearTimeout(timer.current), []);
}

/** The row with what the feed has said since it was read. */
export function withFeed(build: Build, { state }: BuildFeed): Build {
  const turn = Math.max(build.turn, state.turn);
  if (state.lastId <= build.last_event_id || state.lastId === 0)
    return turn === build.turn ? build : { ...build, turn };
  return {
    ...build,
    turn,
    status: state.status as Build["status"],
    waiting_for: state.waitingFor as Build["waiting_for"],
    dependency: state.dependency as Build["dependency"],
    reason: state.reason,
    wakes_at: state.wakesAt,
    build_version: state.version ?? build.build_version,
  };
}

/** The build's row and the feed's news as one. */
export function useCurrent(build: Build | undefined, feed: BuildFeed): Build | undefined {
  return useMemo(() => (build === undefined ? undefined : withFeed(build, feed)), [build, feed]);
}

/** Whether the reader may change the build; undefined until that is known. The API decides; this is what is shown. */
export function useMayChange(build: Build | undefined): boolean | undefined {
  const me = useMe();
  const projectId = build?.project_id;
  const project = useQuery({
    queryKey: keys.project(projectId ?? ""),
    queryFn: () => dataOf(api.GET("/v1/projects/{project_id}", { params: { path: { project_id: projectId ?? "" } } })),
    enabled: projectId !== undefined,
    staleTime: 60_000,
  });
  if (me.data === undefined || build === undefined) return undefined;
  if (!me.data.scopes.includes("builds:write")) return false;
  if (build.started_by === me.data.user && project.data === undefined) return true;
  if (project.data === undefined) return undefined;
  const owner = project.data.organisation_id;
  return me.data.organisations.find((each) => each.id === owner)?.role !== "viewer";
}
