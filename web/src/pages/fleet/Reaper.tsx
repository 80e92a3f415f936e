import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Field } from "../../parts/Field.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { fleet as words } from "../../words/fleet.ts";
import { Card } from "./Card.tsx";
import { keys, POLL_MS } from "./data.ts";
import style from "./Fleet.module.css";
import { Table } from "./Table.tsx";

const text = words.reaperPart;
const KEY = [...keys.controls, "reaper"];

/** Whether the reaper runs, how far its steps are, and what it alerts to; pausing it, and what it would do now. */
export function Reaper({ canAct }: { canAct: boolean }) {
  const client = useQueryClient();
  const [asked, setAsked] = useState<"pause" | "plan">();
  const reaper = useQuery({
    queryKey: KEY,
    queryFn: () => dataOf(api.GET("/v1/ops/reaper")),
    refetchInterval: POLL_MS,
  });
  const resume = useMutation({
    mutationFn: () => dataOf(api.POST("/v1/ops/reaper/resume")),
    onSuccess: (now) => client.setQueryData(KEY, now),
  });
  return (
    <Card id="reaper" title={text.title}>
      <p className={style.quiet}>{text.help}</p>
      {reaper.isPending && <Skeleton />}
      {reaper.isError && <Failure error={reaper.error} retry={reaper.refetch} />}
      {reaper.data !== undefined && <State reaper={reaper.data} />}
      {resume.isError && <Failure error={resume.error} />}
      <div className={style.buttons}>
        <Button onClick={() => setAsked("plan")}>{text.plan}</Button>
        {canAct && reaper.data?.paused === true && (
          <Button kind="main" busy={resume.isPending} onClick={() => resume.mutate()}>
            {text.resume}
          </Button>
        )}
        {canAct && reaper.data?.paused === false && (
          <Button kind="danger" onClick={() => setAsked("pause")}>
            {text.pause}
          </Button>
        )}
      </div>
      {asked === "pause" && <Pause onClose={() => setAsked(undefined)} />}
      {asked === "plan" && <Plan onClose={() => setAsked(undefined)} />}
    </Card>
  );
}

function State({ reaper }: { reaper: Schemas["ReaperOut"] }) {
  return (
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
  );
}

function Pause({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const pause = useMutation({
    mutationFn: (reason: string) => dataOf(api.POST("/v1/ops/reaper/pause", { body: { reason } })),
    onSuccess: (now) => {
      client.setQueryData(KEY, now);
      onClose();
    },
  });

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (!pause.isPending) pause.mutate(String(new FormData(event.currentTarget).get("reason")).trim());
  }

  return (
    <Dialog title={text.pauseTitle} onClose={onClose}>
      <form className={style.form} onSubmit={submit}>
        <p>{text.pauseHelp}</p>
        <Field label={words.bulk.reason} hint={words.bulk.reasonHelp}>
          {(control) => <input {...control} name="reason" required maxLength={500} />}
        </Field>
        {pause.isError && <Failure error={pause.error} />}
        <div className={style.buttons}>
          <Button onClick={onClose}>{words.cancel}</Button>
          <Button type="submit" kind="danger" busy={pause.isPending}>
            {text.pause}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

/** What a run of the reaper would do now. Nothing is changed. */
function Plan({ onClose }: { onClose: () => void }) {
  const plan = useQuery({
    queryKey: [...KEY, "plan"],
    queryFn: () => dataOf(api.GET("/v1/ops/reaper/plan")),
    staleTime: 0,
    gcTime: 0,
    retry: false,
    refetchOnWindowFocus: false,
  });
  return (
    <Dialog title={text.plan} onClose={onClose} actions={<Button onClick={onClose}>{text.close}</Button>}>
      <p className={style.quiet}>{text.planHelp}</p>
      {plan.isPending && <Skeleton />}
      {plan.isError && <Failure error={plan.error} />}
      {plan.data?.steps.map((step) => (
        <section key={step.step} aria-label={step.step}>
          <h3>{text.planStep(step.step, step.count)}</h3>
          {step.problem && <p>{printable(step.problem)}</p>}
          <ul className={style.planned}>
            {step.acts.map((act) => (
              <li key={`${act.act} ${act.id}`}>
                {printable(act.act)} <code>{printable(act.id)}</code>: {printable(act.why)}
              </li>
            ))}
          </ul>
          {step.count > step.acts.length && (
            <p className={style.quiet}>{text.planMore(step.count - step.acts.length)}</p>
          )}
        </section>
      ))}
    </Dialog>
  );
}
