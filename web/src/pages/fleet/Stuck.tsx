import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "wouter";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { webAddress } from "../../parts/webAddress.ts";
import { paths } from "../../paths.ts";
import { fleet as words } from "../../words/fleet.ts";
import { Card } from "./Card.tsx";
import { keys } from "./data.ts";
import style from "./Fleet.module.css";
import { FleetStatus } from "./FleetStatus.tsx";

const text = words.stuckPage;

/** Looking for what is stuck asks Temporal and the sandbox service too: seldom, in milliseconds. */
const POLL_MS = 15_000;

/** So many builds are listed at first. */
const FIRST = 20;

/** What makes no progress, with why and what to do. */
export function Stuck() {
  usePageTitle(text.title);
  const [showsAll, setShowsAll] = useState(false);
  const stuck = useQuery({
    queryKey: [...keys.all, "stuck"],
    queryFn: () => dataOf(api.GET("/v1/ops/stuck")),
    refetchInterval: POLL_MS,
  });
  const isFine = stuck.data?.builds.length === 0 && stuck.data.others.length === 0;
  return (
    <>
      <div className={style.listHead}>
        <h1>{text.title}</h1>
        <Button small busy={stuck.isFetching} onClick={() => void stuck.refetch()}>
          <Icon name="refresh" /> {words.again}
        </Button>
      </div>
      {stuck.isPending && <Skeleton lines={6} />}
      {stuck.isError && <Failure error={stuck.error} retry={stuck.refetch} />}
      {isFine && <Notice kind="good" title={text.none} />}
      {stuck.data !== undefined && stuck.data.others.length > 0 && (
        <Card id="others" title={text.others}>
          <Reasons reasons={stuck.data.others} />
        </Card>
      )}
      {stuck.data !== undefined && stuck.data.builds.length > 0 && (
        <section className={style.list} aria-labelledby="stuck">
          <h2 id="stuck">{text.builds(stuck.data.builds.length)}</h2>
          <ul className={style.runList}>
            {stuck.data.builds.slice(0, showsAll ? undefined : FIRST).map(({ build, why }) => (
              <StuckBuild key={build.id} build={build} why={why} />
            ))}
          </ul>
          {stuck.data.builds.length > FIRST && !showsAll && (
            <div>
              <Button onClick={() => setShowsAll(true)}>{text.showAll(stuck.data.builds.length)}</Button>
            </div>
          )}
        </section>
      )}
    </>
  );
}

type Why = Schemas["WhyOut"];

/** Reasons, each with what to do. */
export function Reasons({ reasons }: { reasons: readonly Why[] }) {
  return (
    <ul className={style.reasons}>
      {reasons.map((why, index) => (
        <li key={`${why.kind} ${index}`}>
          <Icon name="warning" />
          <div>
            <p>
              <strong>{text.kinds[why.kind] ?? why.kind}:</strong> {printable(why.detail)}
            </p>
            <p className={style.remedy}>{printable(why.remedy)}</p>
          </div>
        </li>
      ))}
    </ul>
  );
}

function StuckBuild({ build, why }: { build: Schemas["FleetBuildOut"]; why: readonly Why[] }) {
  const temporal = build.temporal_url ? webAddress(build.temporal_url) : undefined;
  return (
    <li className={style.run}>
      <div className={style.runHead}>
        <h3>
          <Link to={paths.fleetBuild(build.id)}>
            <bdi>{printable(build.project_name)}</bdi>
          </Link>
        </h3>
        <span className={style.quiet}>
          <Link to={paths.fleetUser(build.user_id)}>
            <bdi>{printable(build.user_id)}</bdi>
          </Link>
          , {words.turn(build.turn)}, {words.inStatusSince} <Time at={build.since} as="ago" />
        </span>
      </div>
      <div>
        <FleetStatus
          status={build.status}
          waitingFor={build.waiting_for}
          dependency={build.dependency}
          reason={build.reason}
        />
      </div>
      <Reasons reasons={why} />
      {temporal !== undefined && (
        <a href={temporal.href} target="_blank" rel="noopener noreferrer">
          {words.build.temporal} <Icon name="external" size={12} />
          <span className="visually-hidden"> {printable(build.project_name)}</span>
        </a>
      )}
    </li>
  );
}
