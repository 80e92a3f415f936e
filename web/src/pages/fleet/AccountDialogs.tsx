import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, dataOf, idempotencyKey, type Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Field } from "../../parts/Field.tsx";
import { microdollars, money } from "../../parts/money.ts";
import { fleet as words } from "../../words/fleet.ts";
import { accountKey, forUser, useChangeAccount } from "./data.ts";
import style from "./Fleet.module.css";

const text = words.userPage;

/** Adds to what a user may spend today. The same dialog adds once, however often its button is pressed. */
export function TopUpDialog({ user, onClose }: { user: string; onClose: () => void }) {
  const client = useQueryClient();
  const [key] = useState(idempotencyKey);
  const [typed, setTyped] = useState("");
  const [note, setNote] = useState("");
  const [isWrong, setWrong] = useState(false);
  const amount = microdollars(typed);
  const add = useMutation({
    mutationFn: (body: Schemas["NewTopUp"]) => {
      const { header } = forUser(user);
      const params = { header: { ...header, "idempotency-key": key } };
      return dataOf(api.POST("/v1/account/top-ups", { params, body }));
    },
    onSuccess: (account) => {
      client.setQueryData(accountKey(user), account);
      onClose();
    },
  });

  function submit(event: FormEvent) {
    event.preventDefault();
    if (add.isPending) return;
    const isAmount = amount !== undefined && amount > 0;
    setWrong(!isAmount);
    if (isAmount) add.mutate({ amount, note: note.trim() });
  }

  return (
    <Dialog title={text.topUpTitle(user)} onClose={onClose}>
      <form className={style.form} onSubmit={submit}>
        <p>{text.topUpHelp}</p>
        <Field label={text.dollars} error={isWrong ? words.notDollars : undefined}>
          {(control) => (
            <input
              {...control}
              inputMode="decimal"
              required
              value={typed}
              onChange={(event) => setTyped(event.target.value)}
            />
          )}
        </Field>
        <Field label={text.note} hint={text.noteHelp}>
          {(control) => (
            <input
              {...control}
              required
              maxLength={1000}
              value={note}
              onChange={(event) => setNote(event.target.value)}
            />
          )}
        </Field>
        {add.isError && <Failure error={add.error} />}
        <div className={style.buttons}>
          <Button onClick={onClose}>{words.cancel}</Button>
          <Button type="submit" kind="main" busy={add.isPending}>
            {amount !== undefined && amount > 0 ? text.add(money(amount)) : text.topUp}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

/** Changes a user's plan and the day on which the billing cycle begins. */
export function AccountDialog({
  user,
  account,
  onClose,
}: {
  user: string;
  account: Schemas["AccountOut"];
  onClose: () => void;
}) {
  const change = useChangeAccount(user);
  const save = useMutation({ mutationFn: change, onSuccess: onClose });

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (save.isPending) return;
    const form = new FormData(event.currentTarget);
    const plan = String(form.get("plan")).trim();
    const renewalDay = Number(form.get("renewal"));
    save.mutate({
      ...(plan === account.plan ? {} : { plan }),
      ...(renewalDay === account.renewal_day ? {} : { renewal_day: renewalDay }),
    });
  }

  return (
    <Dialog title={text.changeTitle(user)} onClose={onClose}>
      <form className={style.form} onSubmit={submit}>
        <p>{text.changeHelp}</p>
        <Field label={text.plan}>
          {(control) => <input {...control} name="plan" required defaultValue={account.plan} autoComplete="off" />}
        </Field>
        <Field label={text.renewal}>
          {(control) => (
            <input
              {...control}
              name="renewal"
              type="number"
              required
              min={1}
              max={31}
              defaultValue={account.renewal_day}
            />
          )}
        </Field>
        {save.isError && <Failure error={save.error} />}
        <div className={style.buttons}>
          <Button onClick={onClose}>{words.cancel}</Button>
          <Button type="submit" kind="main" busy={save.isPending}>
            {text.save}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
