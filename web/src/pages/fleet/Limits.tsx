import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Field } from "../../parts/Field.tsx";
import { microdollars, money } from "../../parts/money.ts";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { fleet as words } from "../../words/fleet.ts";
import { Card } from "./Card.tsx";
import { keys, POLL_MS } from "./data.ts";
import style from "./Fleet.module.css";

type Limit = Schemas["LimitOut"];

const text = words.limitsPart;

/** The limits of the whole service, and how much of each is used today. */
export function Limits({ canAct }: { canAct: boolean }) {
  const [asked, setAsked] = useState<Limit>();
  const limits = useQuery({
    queryKey: [...keys.controls, "limits"],
    queryFn: () => dataOf(api.GET("/v1/ops/limits")),
    refetchInterval: POLL_MS,
  });
  return (
    <Card id="limits" title={text.title}>
      <p className={style.quiet}>{text.help}</p>
      {limits.isPending && <Skeleton />}
      {limits.isError && <Failure error={limits.error} retry={limits.refetch} />}
      <ul className={style.plainList}>
        {limits.data?.limits.map((limit) => (
          <li key={limit.name}>
            <div>
              <strong>{text.names[limit.name] ?? limit.name}</strong>
              <small>
                {limit.value_microdollars === null ? text.none : money(limit.value_microdollars)} ·{" "}
                {text.used(money(limit.spent_microdollars), money(limit.reserved_microdollars))}
                {limit.set_by && limit.set_at && (
                  <>
                    {" "}
                    · {printable(limit.set_by)}, <Time at={limit.set_at} as="ago" />
                  </>
                )}
              </small>
              {limit.value_microdollars !== null && (
                <progress
                  max={Math.max(1, limit.value_microdollars)}
                  value={Math.min(limit.value_microdollars, limit.spent_microdollars + limit.reserved_microdollars)}
                  aria-label={text.names[limit.name] ?? limit.name}
                />
              )}
            </div>
            {canAct && (
              <Button small onClick={() => setAsked(limit)}>
                {text.change}
              </Button>
            )}
          </li>
        ))}
      </ul>
      {asked !== undefined && <Change limit={asked} onClose={() => setAsked(undefined)} />}
    </Card>
  );
}

function Change({ limit, onClose }: { limit: Limit; onClose: () => void }) {
  const client = useQueryClient();
  const [typed, setTyped] = useState(
    limit.value_microdollars === null ? "" : String(limit.value_microdollars / 1_000_000),
  );
  const [isWrong, setWrong] = useState(false);
  const change = useMutation({
    mutationFn: (value: number | null) =>
      dataOf(
        api.PUT("/v1/ops/limits/{name}", {
          params: { path: { name: limit.name } },
          body: { value_microdollars: value },
        }),
      ),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: keys.all });
      onClose();
    },
  });

  function submit(event: FormEvent) {
    event.preventDefault();
    if (change.isPending) return;
    const value = typed.trim() === "" ? null : microdollars(typed);
    setWrong(value === undefined);
    if (value !== undefined) change.mutate(value);
  }

  return (
    <Dialog title={text.names[limit.name] ?? limit.name} onClose={onClose}>
      <form className={style.form} onSubmit={submit}>
        <p>{text.changeHelp}</p>
        <Field label={text.dollars} hint={text.empty} error={isWrong ? words.notDollars : undefined}>
          {(control) => (
            <input {...control} inputMode="decimal" value={typed} onChange={(event) => setTyped(event.target.value)} />
          )}
        </Field>
        {change.isError && <Failure error={change.error} />}
        <div className={style.buttons}>
          <Button onClick={onClose}>{words.cancel}</Button>
          <Button type="submit" kind="main" busy={change.isPending}>
            {typed.trim() === "" ? text.remove : text.set}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
