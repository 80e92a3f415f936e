import { useMe } from "../../api/queries.ts";
import { mayOperate } from "../../api/rights.ts";
import { Failure } from "../../parts/Failure.tsx";
import { printable } from "../../parts/printable.ts";
import { InOrder, Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { fleet as words } from "../../words/fleet.ts";
import { Audit } from "./Audit.tsx";
import { Card } from "./Card.tsx";
import { Checks } from "./Checks.tsx";
import { useFleet } from "./data.ts";
import style from "./Fleet.module.css";
import { Limits } from "./Limits.tsx";
import { Reaper } from "./Reaper.tsx";
import { Switches } from "./Switches.tsx";
import { Table } from "./Table.tsx";

const text = words.controlsPage;
const WHOLE = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });

/** What operators switch, set and look after while everything runs. */
export function Controls() {
  usePageTitle(text.title);
  const canAct = mayOperate(useMe().data);
  return (
    <InOrder className={style.page}>
      <h1>{text.title}</h1>
      <InOrder className={style.cards}>
        <InOrder className={style.stack}>
          <Switches canAct={canAct} />
          <Limits canAct={canAct} />
          <Reaper canAct={canAct} />
        </InOrder>
        <Dependencies />
      </InOrder>
      <div className={style.page}>
        <Checks />
        <Audit />
      </div>
    </InOrder>
  );
}

/** Services, sandboxes, rates and processes: what builds get, and what they wait for. */
function Dependencies() {
  const fleet = useFleet();
  return (
    <Card id="capacity" title={text.capacity}>
      {fleet.isPending && <Skeleton />}
      {fleet.isError && <Failure error={fleet.error} retry={fleet.refetch} />}
      {fleet.data !== undefined && (
        <>
          <Table
            caption={text.services}
            heads={[text.service, text.state, text.since, text.waitingBuilds]}
            rows={fleet.data.dependencies.map((each) => ({
              key: each.name,
              cells: [
                words.dependency[each.name] ?? each.name,
                <>
                  {text.states[each.state] ?? each.state}
                  {each.detail && each.state !== "up" && <small>{printable(each.detail)}</small>}
                </>,
                each.since === null ? "–" : <Time at={each.since} as="ago" />,
                each.builds.toLocaleString(),
              ],
            }))}
          />
          <Table
            caption={text.permits}
            heads={[text.kind, text.used, text.queued]}
            rows={fleet.data.permits.map((each) => ({
              key: each.kind,
              cells: [
                text.kinds[each.kind] ?? each.kind,
                each.quota === null ? each.used : text.ofQuota(each.used, each.quota),
                each.queued,
              ],
            }))}
          />
          <Table
            caption={text.rates}
            empty={text.noRates}
            heads={[text.model, text.requests, text.input, text.output]}
            rows={fleet.data.rates.map((each) => ({
              key: each.model,
              cells: [
                <>
                  {printable(each.model)}
                  {each.blocked_until && (
                    <small>
                      {text.blocked} <Time at={each.blocked_until} as="ago" />
                    </small>
                  )}
                </>,
                ...[each.requests_left, each.input_left, each.output_left].map((left) =>
                  left === null ? text.unknown : WHOLE.format(left),
                ),
              ],
            }))}
          />
          <Table
            caption={text.processes}
            empty={text.noProcesses}
            heads={[text.process, text.version, text.seen]}
            rows={fleet.data.workers.map((each, index) => ({
              key: `${index}`,
              cells: [
                text.roles[each.role] ?? each.role,
                <code key="version">{printable(each.version)}</code>,
                <Time key="seen" at={each.seen_at} as="ago" />,
              ],
            }))}
          />
        </>
      )}
    </Card>
  );
}
