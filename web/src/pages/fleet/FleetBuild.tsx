import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { Link } from "wouter";
import { api, dataOf, Problem, type Schemas } from "../../api/client.ts";
import { useMe } from "../../api/queries.ts";
import { mayOperate } from "../../api/rights.ts";
import { Button, ButtonLink } from "../../parts/Button.tsx";
import { Confirm } from "../../parts/Confirm.tsx";
import { Copy } from "../../parts/Copy.tsx";
import { ExternalLink } from "../../parts/ExternalLink.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { money } from "../../parts/money.ts";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { size } from "../../parts/size.ts";
import { Time } from "../../parts/Time.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { paths } from "../../paths.ts";
import { fleet as words } from "../../words/fleet.ts";
import { Card } from "./Card.tsx";
import { forUser, keys } from "./data.ts";
import style from "./Fleet.module.css";
import { FleetStatus } from "./FleetStatus.tsx";
import { Reasons } from "./Stuck.tsx";
import { Table } from "./Table.tsx";

type Whole = Schemas["WholeBuildOut"];
type Act = "wake" | "finish" | "cancel";

const text = words.build;

/** One build as the database, Temporal and the sandbox service know it. Read on request: each reading is in the audit. */
export function FleetBuild({ id }: { id: string }) {
  usePageTitle(text.title(id.slice(0, 8)));
  const build = useQuery({
    queryKey: [...keys.all, "build", id],
    queryFn: () => dataOf(api.GET("/v1/ops/builds/{build_id}", { params: { path: { build_id: id } } })),
    staleTime: 30_000,
    refetchOnWindowFocus: false,
  });
  if (build.isPending) return <Skeleton page={text.title(id.slice(0, 8))} lines={8} />;
  if (build.isError) {
    const isMissing = build.error instanceof Problem && build.error.status === 404;
    return isMissing ? (
      <Notice kind="info" isPage title={text.notThere} />
    ) : (
      <Failure page={text.title(id.slice(0, 8))} error={build.error} retry={build.refetch} />
    );
  }
  const whole = build.data;
  return (
    <>
      <Head whole={whole} isReading={build.isFetching} onRead={() => void build.refetch()} />
      {whole.why.length > 0 && (
        <Card id="why" title={text.why}>
          <Reasons reasons={whole.why} />
        </Card>
      )}
      <div className={style.cards}>
        <Row build={whole.build} />
        <div className={style.stack}>
          <Workflow whole={whole} />
          <Sandbox whole={whole} />
        </div>
      </div>
      <Snapshots whole={whole} />
      <Ledger whole={whole} />
      <Events whole={whole} />
    </>
  );
}

function Head({ whole, isReading, onRead }: { whole: Whole; isReading: boolean; onRead: () => void }) {
  const client = useQueryClient();
  const me = useMe().data;
  const canAct = mayOperate(me);
  const [act, setAct] = useState<Act>();
  const { build } = whole;
  const isOpen = build.closed_at === null;

  async function carryOut(chosen: Act) {
    const params = { ...forUser(build.user_id), path: { build_id: build.id } };
    if (chosen === "wake") await api.POST("/v1/builds/{build_id}/wake", { params });
    else if (chosen === "finish") await api.POST("/v1/builds/{build_id}/finish", { params });
    else await api.POST("/v1/builds/{build_id}/cancel", { params });
    await client.invalidateQueries({ queryKey: keys.all });
  }

  return (
    <div className={style.list}>
      <div className={style.listHead}>
        <h1>
          <bdi>{printable(build.project_name)}</bdi>
        </h1>
        <div className={style.buttons}>
          <Button small busy={isReading} onClick={onRead}>
            <Icon name="refresh" /> {words.again}
          </Button>
          {me?.user === build.user_id && (
            <ButtonLink small to={paths.build(build.id)}>
              {text.open}
            </ButtonLink>
          )}
          {canAct &&
            isOpen &&
            (["wake", "finish", "cancel"] as const).map((each) => (
              <Button key={each} small kind={each === "cancel" ? "danger" : "plain"} onClick={() => setAct(each)}>
                {words.bulk.acts[each]}
              </Button>
            ))}
        </div>
      </div>
      <p>
        <code>{build.id}</code> <Copy text={build.id} />
      </p>
      <div>
        <FleetStatus
          status={build.status}
          waitingFor={build.waiting_for}
          dependency={build.dependency}
          reason={build.reason}
        />
      </div>
      {act !== undefined && (
        <Confirm
          danger={act === "cancel"}
          title={text.actTitles[act]}
          verb={words.bulk.acts[act] ?? act}
          onClose={() => setAct(undefined)}
          act={() => carryOut(act)}
        >
          <p>{text.actHelp[act]}</p>
        </Confirm>
      )}
    </div>
  );
}

/** Names and values. */
function Figures({ figures }: { figures: readonly (readonly [string, ReactNode])[] }) {
  return (
    <dl className={style.figures}>
      {figures.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value ?? "–"}</dd>
        </div>
      ))}
    </dl>
  );
}

function Row({ build }: { build: Schemas["FleetBuildOut"] }) {
  const at = (time: string | null) => time && <Time at={time} as="ago" />;
  return (
    <Card id="row" title={text.row}>
      <Figures
        figures={[
          [
            words.table.user,
            <Link key="user" to={paths.fleetUser(build.user_id)}>
              <bdi>{printable(build.user_id)}</bdi>
            </Link>,
          ],
          [text.plan, printable(build.plan)],
          [text.model, build.model && printable(build.model)],
          [words.table.turn, build.turn],
          [words.table.spent, money(build.spent_microdollars)],
          [words.table.created, at(build.created_at)],
          [words.table.since, at(build.since)],
          [words.table.lastEvent, at(build.last_event_at)],
          [words.table.wakes, at(build.wakes_at)],
          [text.closed, at(build.closed_at)],
        ]}
      />
      <p>
        <span className={style.quiet}>{text.goal}</span> {printable(build.goal)}
      </p>
    </Card>
  );
}

function Workflow({ whole }: { whole: Whole }) {
  const { workflow } = whole;
  return (
    <Card id="workflow" title={text.workflow}>
      {workflow === null ? (
        <p>{whole.temporal_answers ? text.noWorkflow : text.temporalAway}</p>
      ) : (
        <>
          <Figures
            figures={[
              [text.workflowStatus, workflow.status],
              [text.version, workflow.version && <code>{printable(workflow.version)}</code>],
              [text.history, text.events(workflow.history_events)],
              [text.begun, <Time key="begun" at={workflow.started_at} as="ago" />],
              [text.run, <code key="run">{workflow.run_id}</code>],
            ]}
          />
          {workflow.task_attempt > 1 && <Notice kind="bad" title={text.taskFails(workflow.task_attempt)} />}
          {workflow.problems.map((problem) => (
            <Notice key={problem} kind="bad" title={printable(problem)} />
          ))}
          <Table
            caption={text.activities}
            empty={text.noActivities}
            heads={[text.activity, text.attempt, text.lastFailure]}
            rows={workflow.pending_activities.map((each, index) => ({
              key: `${each.name} ${index}`,
              cells: [
                <code key="name">{printable(each.name)}</code>,
                each.attempt,
                each.last_failure === null ? "–" : printable(each.last_failure),
              ],
            }))}
          />
          {workflow.url && <ExternalLink href={workflow.url}>{text.temporal}</ExternalLink>}
        </>
      )}
      <p className={style.line}>
        <code>{whole.wake_command}</code> <Copy text={whole.wake_command} label={text.copyWake} />
      </p>
    </Card>
  );
}

function Sandbox({ whole }: { whole: Whole }) {
  const { permit } = whole;
  return (
    <Card id="sandbox" title={text.sandbox}>
      <Figures
        figures={[
          [text.sandboxId, whole.sandbox_id && <code>{printable(whole.sandbox_id)}</code>],
          [
            text.permit,
            permit === null ? (
              text.noPermit
            ) : (
              <>
                {words.controlsPage.kinds[permit.role] ?? permit.role},{" "}
                {permit.held_since === null ? text.queued : text.held}{" "}
                <Time at={permit.held_since ?? permit.queued_at} as="ago" />
              </>
            ),
          ],
          [text.preview, whole.preview_url && printable(whole.preview_url)],
        ]}
      />
    </Card>
  );
}

function Snapshots({ whole }: { whole: Whole }) {
  return (
    <Card id="snapshots" title={text.snapshots}>
      <Table
        caption={text.newestFirst}
        empty={text.noSnapshots}
        heads={[text.number, text.snapshotState, text.reason, text.size, text.made]}
        rows={whole.snapshots.map((each) => ({
          key: String(each.number),
          cells: [
            each.number,
            each.state,
            printable(each.reason),
            each.archive_bytes === null ? "–" : size(each.archive_bytes),
            <Time key="made" at={each.created_at} as="ago" />,
          ],
        }))}
      />
    </Card>
  );
}

function Ledger({ whole }: { whole: Whole }) {
  return (
    <Card id="ledger" title={text.ledger}>
      <Table
        caption={text.ledgerCaption}
        empty={text.noCalls}
        numbersFrom={3}
        heads={[text.model, text.kind, text.callState, text.calls, words.table.spent]}
        rows={whole.ledger.map((each) => ({
          key: `${each.model} ${each.kind} ${each.state}`,
          cells: [
            printable(each.model),
            printable(each.kind),
            each.state,
            each.calls.toLocaleString(),
            money(each.spent_microdollars),
          ],
        }))}
      />
    </Card>
  );
}

function Events({ whole }: { whole: Whole }) {
  // The founders' page has builds of who is signed in.
  const isOwn = useMe().data?.user === whole.build.user_id;
  return (
    <Card id="events" title={text.lastEvents}>
      <Table
        caption={text.newestFirst}
        empty={text.noEvents}
        heads={[text.event, text.type, words.table.turn, text.at, text.content]}
        rows={whole.events.map((each) => ({
          key: String(each.id),
          cells: [
            isOwn ? (
              <Link key="event" to={paths.build(whole.build.id, each.id)}>
                {each.id}
              </Link>
            ) : (
              each.id
            ),
            <code key="type">{printable(each.type)}</code>,
            each.turn ?? "–",
            <Time key="at" at={each.created_at} />,
            <code key="content" className={style.content}>
              {printable(JSON.stringify(each.data)).slice(0, 500)}
            </code>,
          ],
        }))}
      />
    </Card>
  );
}
