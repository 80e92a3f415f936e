import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { Link } from "wouter";
import { api, dataOf } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { paths } from "../../paths.ts";
import { fleet as words } from "../../words/fleet.ts";
import { type BulkRun, keys, useRuns } from "./data.ts";
import style from "./Fleet.module.css";

const text = words.bulk;

/** The acts on many builds: those under way or stopped, and the earlier ones on request. */
export function BulkRuns({ canAct }: { canAct: boolean }) {
  const client = useQueryClient();
  const runs = useRuns();
  const all = runs.data?.runs ?? [];
  const isCurrent = (run: BulkRun) => run.state !== "finished" || run.failed > 0;
  // The one that has just been begun stays in sight when it has finished.
  const [newest] = all;
  const current = all.filter((run) => isCurrent(run) || (run === newest && isRecent(run)));
  const earlier = all.filter((run) => !current.includes(run));
  const reached = all.reduce((sum, run) => sum + run.done + run.skipped + run.failed, 0);
  useEffect(() => {
    void client.invalidateQueries({ queryKey: keys.builds });
  }, [client, reached]);
  if (runs.isPending) return <Skeleton lines={1} />;
  if (all.length === 0) return null;
  return (
    <section className={style.runs} aria-labelledby="runs">
      <h2 id="runs" className={current.length === 0 ? "visually-hidden" : undefined}>
        {text.runs}
      </h2>
      <ul className={style.runList}>
        {current.map((run) => (
          <Run key={run.id} run={run} canAct={canAct} />
        ))}
      </ul>
      {earlier.length > 0 && (
        <details>
          <summary>{text.olderRuns}</summary>
          <ul className={style.runList}>
            {earlier.map((run) => (
              <Run key={run.id} run={run} canAct={canAct} />
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}

const RECENT_MS = 10 * 60_000;

function isRecent(run: BulkRun): boolean {
  return Date.now() - Date.parse(run.ended_at ?? run.created_at) < RECENT_MS;
}

function Run({ run, canAct }: { run: BulkRun; canAct: boolean }) {
  const client = useQueryClient();
  const [showsFailed, setShowsFailed] = useState(false);
  const change = useMutation({
    mutationFn: (what: "stop" | "resume") => {
      const params = { path: { run_id: run.id } };
      return what === "stop"
        ? dataOf(api.POST("/v1/ops/bulk/{run_id}/stop", { params }))
        : dataOf(api.POST("/v1/ops/bulk/{run_id}/resume", { params }));
    },
    onSettled: () => client.invalidateQueries({ queryKey: keys.runs }),
  });
  const reached = run.done + run.skipped + run.failed;
  const name = `${text.titles[run.act] ?? run.act}: ${printable(run.reason)}`;
  const canResume = run.state === "stopped" || (run.state === "finished" && run.failed > 0);
  return (
    <li className={style.run}>
      <div className={style.runHead}>
        <strong>{name}</strong>
        <span className={style.quiet}>
          {text.states[run.state] ?? run.state}, {text.by(printable(run.by))}, <Time at={run.created_at} as="ago" />
        </span>
      </div>
      <progress max={Math.max(1, run.total)} value={reached} aria-label={name} />
      <p className={style.runFigures}>
        {text.progress(reached, run.total)} <span>{text.results(run.done, run.skipped, run.failed)}</span>
      </p>
      <code className={style.where}>{printable(run.where.startsWith("id=") ? "" : run.where)}</code>
      {canAct && (
        <div className={style.buttons}>
          {run.state === "running" && (
            <Button small busy={change.isPending} onClick={() => change.mutate("stop")}>
              {text.stop}
            </Button>
          )}
          {canResume && (
            <Button small busy={change.isPending} onClick={() => change.mutate("resume")}>
              {run.state === "stopped" ? text.resume : text.again}
            </Button>
          )}
          {run.failed > 0 && (
            <Button small kind="quiet" aria-expanded={showsFailed} onClick={() => setShowsFailed(!showsFailed)}>
              {text.showFailed}
            </Button>
          )}
        </div>
      )}
      {change.isError && <Failure error={change.error} />}
      {showsFailed && <FailedBuilds run={run} />}
    </li>
  );
}

function FailedBuilds({ run }: { run: BulkRun }) {
  const builds = useQuery({
    queryKey: [...keys.runs, run.id, run.failed],
    queryFn: () =>
      dataOf(
        api.GET("/v1/ops/bulk/{run_id}", {
          params: { path: { run_id: run.id }, query: { state: "failed", limit: 100 } },
        }),
      ),
  });
  if (builds.isError) return <Failure error={builds.error} retry={builds.refetch} />;
  return (
    <ul aria-label={text.failedBuilds}>
      {builds.data?.builds.map((build) => (
        <li key={build.build_id}>
          <Link to={paths.fleetBuild(build.build_id)}>{build.build_id.slice(0, 8)}</Link>{" "}
          <bdi>{printable(build.user_id)}</bdi>: {printable(build.why ?? "")}
        </li>
      ))}
    </ul>
  );
}
