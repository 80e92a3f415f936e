import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { useMe } from "../../api/queries.ts";
import { Button } from "../../parts/Button.tsx";
import { Confirm } from "../../parts/Confirm.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { account as accountWords } from "../../words/account.ts";
import style from "./Account.module.css";
import { Item } from "./Item.tsx";
import { Secret } from "./Secret.tsx";

const QUERY = ["keys"] as const;
const DEFAULT_DAYS = 90;
const MOST_DAYS = 366;

type Asked = { what: "make" } | { what: "rotate" | "revoke"; key: Schemas["KeyOut"] };

/** The user's API keys: make, replace, revoke. */
export function Keys() {
  const client = useQueryClient();
  const list = useQuery({ queryKey: QUERY, queryFn: () => dataOf(api.GET("/v1/keys")) });
  const [asked, setAsked] = useState<Asked>();
  const [secret, setSecret] = useState<string>();
  const refresh = () => client.invalidateQueries({ queryKey: QUERY });

  return (
    <section className={style.card} aria-labelledby="keys">
      <div className={style.head}>
        <h2 id="keys">{accountWords.keys}</h2>
        <Button onClick={() => setAsked({ what: "make" })}>
          <Icon name="plus" /> {accountWords.makeKey}
        </Button>
      </div>
      <p className={style.help}>{accountWords.keysHelp}</p>
      {list.isPending && <Skeleton />}
      {list.isError && <Failure error={list.error} retry={list.refetch} />}
      {list.data?.keys.length === 0 && <p className={style.help}>{accountWords.noKeys}</p>}
      <ul className={style.list}>
        {list.data?.keys.map((key) => (
          <Item
            key={key.id}
            title={
              <>
                <bdi>{printable(key.name)}</bdi>
                <small>{key.scopes.map((scope) => accountWords.scopes[scope] ?? scope).join(" · ")}</small>
              </>
            }
            facts={[
              [accountWords.created, <Time key="made" at={key.created_at} as="ago" />],
              [accountWords.lastUsed, key.last_used_at ? <Time at={key.last_used_at} as="ago" /> : accountWords.never],
              [
                accountWords.expires,
                key.expires_at ? <Time at={key.expires_at} as="ago" /> : accountWords.doesNotExpire,
              ],
            ]}
          >
            {key.replaced_by ? (
              <span className={style.help}>{accountWords.replaced}</span>
            ) : (
              <Button
                small
                onClick={() => setAsked({ what: "rotate", key })}
                aria-label={`${accountWords.rotate}: ${key.name}`}
              >
                {accountWords.rotate}
              </Button>
            )}
            <Button
              small
              kind="danger"
              onClick={() => setAsked({ what: "revoke", key })}
              aria-label={`${accountWords.revoke}: ${key.name}`}
            >
              {accountWords.revoke}
            </Button>
          </Item>
        ))}
      </ul>
      {asked?.what === "make" && (
        <NewKey
          onClose={() => setAsked(undefined)}
          onMade={(made) => {
            setAsked(undefined);
            setSecret(made);
            refresh();
          }}
        />
      )}
      {asked?.what === "rotate" && (
        <Confirm
          title={accountWords.rotateTitle(printable(asked.key.name))}
          verb={accountWords.rotate}
          keep={accountWords.keep}
          onClose={() => setAsked(undefined)}
          act={async () => {
            const path = { key_id: asked.key.id };
            const made = await dataOf(api.POST("/v1/keys/{key_id}/rotate", { params: { path }, body: {} as never }));
            setSecret(made.secret);
            await refresh();
          }}
        >
          <p>{accountWords.rotateHelp}</p>
        </Confirm>
      )}
      {asked?.what === "revoke" && (
        <Confirm
          danger
          title={accountWords.revokeTitle(printable(asked.key.name))}
          verb={accountWords.revoke}
          keep={accountWords.keep}
          onClose={() => setAsked(undefined)}
          act={async () => {
            await api.DELETE("/v1/keys/{key_id}", { params: { path: { key_id: asked.key.id } } });
            await refresh();
          }}
        >
          <p>{accountWords.revokeHelp}</p>
        </Confirm>
      )}
      {secret !== undefined && (
        <Secret
          title={accountWords.secretTitle}
          help={accountWords.secretHelp}
          secret={secret}
          onClose={() => setSecret(undefined)}
        />
      )}
    </section>
  );
}

function NewKey({ onClose, onMade }: { onClose: () => void; onMade: (secret: string) => void }) {
  const me = useMe();
  const scopes = me.data?.scopes ?? [];
  const make = useMutation({
    mutationFn: (body: Schemas["NewKey"]) => dataOf(api.POST("/v1/keys", { body })),
    onSuccess: (made) => onMade(made.secret),
  });

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (make.isPending) return;
    const form = new FormData(event.currentTarget);
    make.mutate({
      name: String(form.get("name")).trim(),
      days: Number(form.get("days")),
      scopes: form.getAll("scope") as Schemas["Scope"][],
    });
  }

  return (
    <Dialog title={accountWords.makeKey} onClose={onClose}>
      <form className={style.form} onSubmit={submit}>
        <div className={style.field}>
          <label htmlFor="key-name">{accountWords.keyName}</label>
          <input
            id="key-name"
            name="name"
            required
            maxLength={100}
            autoComplete="off"
            aria-describedby="key-name-help"
          />
          <small id="key-name-help">{accountWords.keyNameHelp}</small>
        </div>
        <div className={style.field}>
          <label htmlFor="key-days">{accountWords.keyDays}</label>
          <input id="key-days" name="days" type="number" required min={1} max={MOST_DAYS} defaultValue={DEFAULT_DAYS} />
        </div>
        <fieldset>
          <legend>{accountWords.keyScopes}</legend>
          {scopes.map((scope) => (
            <label key={scope} className={style.check}>
              <input type="checkbox" name="scope" value={scope} defaultChecked={!scope.startsWith("ops:")} />
              {accountWords.scopes[scope] ?? scope}
            </label>
          ))}
        </fieldset>
        {make.isError && <Failure error={make.error} />}
        <div className={style.buttons}>
          <Button type="submit" kind="main" busy={make.isPending}>
            {accountWords.make}
          </Button>
          <Button onClick={onClose}>{accountWords.cancel}</Button>
        </div>
      </form>
    </Dialog>
  );
}
