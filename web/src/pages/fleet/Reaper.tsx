import { Failure } from "../../parts/Failure.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { fleet as words } from "../../words/fleet.ts";
import { Card } from "./Card.tsx";
import { useFleet } from "./data.ts";
import style from "./Fleet.module.css";
import { Table } from "./Table.tsx";

const text = words.reaperPart;

/** Whether the reaper runs, how far its steps are, and what it alerts to. */
export function Reaper() {
  const fleet = useFleet();
  const reaper = fleet.data?.reaper;
  return (
    <Card id="reaper" title={text.title}>
      <p className={style.quiet}>{text.help}</p>
      {fleet.isPending && <Skeleton />}
      {fleet.isError && <Failure error={fleet.error} retry={fleet.refetch} />}
      {reaper !== undefined && (
        <>
          {reaper.paused ? (
            <Notice kind="warn" title={text.paused}>
              {reaper.note && <p>{printable(reaper.note)}</p>}
            </Notice>
          ) : (
            <p>
              {reaper.paused === null ? text.unknown : text.runs}
              {reaper.last_run_at && (
                <>
                  {" "}
                  {text.lastRun} <Time at={reaper.last_run_at} as="ago" />
                </>
              )}
            </p>
          )}
          <Table
            caption={text.steps}
            empty={text.noSteps}
            heads={[text.step, text.at, text.alert]}
            rows={reaper.steps.map((step) => ({
              key: step.step,
              cells: [
                <code key="step">{printable(step.step)}</code>,
                step.at === null ? "–" : <Time at={step.at} as="ago" />,
                step.alert === null ? (
                  "–"
                ) : (
                  <>
                    {printable(step.alert)}
                    {step.alert_at && (
                      <small>
                        <Time at={step.alert_at} as="ago" />
                      </small>
                    )}
                  </>
                ),
              ],
            }))}
          />
        </>
      )}
    </Card>
  );
}
