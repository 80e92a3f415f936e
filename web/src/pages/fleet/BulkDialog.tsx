import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, dataOf, idempotencyKey, type Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Field } from "../../parts/Field.tsx";
import { printable } from "../../parts/printable.ts";
import { duration } from "../../parts/Time.tsx";
import { fleet as words } from "../../words/fleet.ts";
import { type BulkAct, keys } from "./data.ts";
import style from "./Fleet.module.css";

const RATE = 20;
const MOST_RATE = 50;
/** So many builds of the dry run are listed. */
const SAMPLE = 8;

const text = words.bulk;

interface Props {
  act: BulkAct;
  /** Which builds, for people. */
  on: string;
  /** Which builds, for the API. */
  where: string;
  onClose: () => void;
  onBegun: () => void;
}

/** Asks for the reason and the rate of an act on many builds, shows what it would do, then begins it. */
export function BulkDialog({ act, on, where, onClose, onBegun }: Props) {
  const client = useQueryClient();
  const [reason, setReason] = useState("");
  const [rate, setRate] = useState(RATE);
  const [key] = useState(idempotencyKey);
  const body = { act, where, reason: reason.trim(), rate_per_second: rate };
  const tried = useMutation({
    mutationFn: async () =>
      (await dataOf(api.POST("/v1/ops/bulk", { body: { ...body, dry_run: true } }))) as Schemas["DryRunOut"],
  });
  const begun = useMutation({
    mutationFn: () =>
      dataOf(
        api.POST("/v1/ops/bulk", {
          params: { header: { "idempotency-key": key } },
          body: { ...body, dry_run: false },
        }),
      ),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: keys.runs });
      onBegun();
    },
  });
  const expected = tried.data;

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (tried.isPending || begun.isPending) return;
    if (expected === undefined) tried.mutate();
    else if (expected.fitting > 0) begun.mutate();
  }

  return (
    <Dialog title={text.titles[act] ?? act} onClose={onClose}>
      <form className={style.form} onSubmit={submit}>
        <p>{text.what[act]}</p>
        <p>
          <strong>{text.on}:</strong> {on}
          <code className={style.where}>{printable(where.startsWith("id=") ? "" : where)}</code>
        </p>
        <Field label={text.reason} hint={text.reasonHelp}>
          {(control) => (
            <input
              {...control}
              required
              maxLength={500}
              value={reason}
              onChange={(event) => setReason(event.target.value)}
            />
          )}
        </Field>
        <Field label={text.rate}>
          {(control) => (
            <input
              {...control}
              type="number"
              required
              min={1}
              max={MOST_RATE}
              value={Number.isNaN(rate) ? "" : rate}
              onChange={(event) => setRate(event.target.valueAsNumber)}
            />
          )}
        </Field>
        {expected !== undefined && <DryRun expected={expected} rate={rate} />}
        {tried.isError && <Failure error={tried.error} />}
        {begun.isError && <Failure error={begun.error} />}
        <div className={style.buttons}>
          <Button onClick={onClose}>{words.cancel}</Button>
          {expected === undefined ? (
            <Button type="submit" kind="main" busy={tried.isPending}>
              {text.check}
            </Button>
          ) : (
            expected.fitting > 0 && (
              <Button
                type="submit"
                kind={act === "cancel" || act === "suspend" ? "danger" : "main"}
                busy={begun.isPending}
              >
                {text.verbs[act]?.(expected.fitting)}
              </Button>
            )
          )}
        </div>
      </form>
    </Dialog>
  );
}

function DryRun({ expected, rate }: { expected: Schemas["DryRunOut"]; rate: number }) {
  return (
    <div className={style.dryRun} role="status">
      <p>
        <strong>{expected.fitting === 0 ? text.none : text.dryRun(expected.fitting, expected.count)}</strong>{" "}
        {expected.fitting > 0 && rate > 0 && text.takes(duration(Math.max(1, expected.fitting / rate)))}
      </p>
      <details>
        <summary>{text.sample}</summary>
        <ul>
          {expected.sample.slice(0, SAMPLE).map((build) => (
            <li key={build.build_id}>
              <code>{build.build_id.slice(0, 8)}</code> <bdi>{printable(build.user_id)}</bdi>, {build.status}:{" "}
              {build.why_not === null ? text.fits : printable(build.why_not)}
            </li>
          ))}
        </ul>
      </details>
    </div>
  );
}
