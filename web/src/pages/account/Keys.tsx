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
import { words } from "../../words/index.ts";
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
        <h2 id="keys">{words.account.keys}</h2>
        <Button onClick={() => setAsked({ what: "make" })}>
          <Icon name="plus" /> {words.account.makeKey}
        </Button>
      </div>
      <p className={style.help}>{words.account.keysHelp}</p>
      {list.isPending && <Skeleton />}
      {list.isError && <Failure error={list.error} retry={list.refetch} />}
      {list.data?.keys.length === 0 && <p className={style.help}>{words.account.noKeys}</p>}
      <ul className={style.list}>
        {list.data?.keys.map((key) => (
          <Item
            key={key.id}
            title={
              <>
                <bdi>{printable(key.name)}</bdi>
                <small>{key.scopes.map((scope) => words.account.scopes[scope] ?? scope).join(" · ")}</small>
              </>
            }
            facts={[
              [words.account.created, <Time key="made" at={key.created_at} as="ago" />],
              [
                words.account.lastUsed,
                key.last_used_at ? <Time at={key.last_used_at} as="ago" /> : words.account.never,
              ],
              [
                words.account.expires,
                key.expires_at ? <Time at={key.expires_at} as="ago" /> : words.account.doesNotExpire,
              ],
            ]}
          >
            {key.replaced_by ? (
              <span className={style.help}>{words.account.replaced}</span>
            ) : (
              <Button
                small
                onClick={() => setAsked({ what: "rotate", key })}
                aria-label={`${words.account.rotate}: ${key.name}`}
              >
                {words.account.rotate}
              </Button>
            )}
            <Button
              small
              kind="danger"
              onClick={() => setAsked({ what: "revoke", key })}
              aria-label={`${words.account.revoke}: ${key.name}`}
            >
              {words.account.revoke}
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
          title={words.account.rotateTitle(printable(asked.key.name))}
          verb={words.account.rotate}
          keep={words.account.keep}
          onClose={() => setAsked(undefined)}
          act={async () => {
            const path = { key_id: asked.key.id };
            const made = await dataOf(api.POST("/v1/keys/{key_id}/rotate", { params: { path }, body: {} as never }));
            setSecret(made.secret);
            await refresh();
          }}
        >
          <p>{words.account.rotateHelp}</p>
        </Confirm>
      )}
      {asked?.what === "revoke" && (
        <Confirm
          danger
          title={words.account.revokeTitle(printable(asked.key.name))}
          verb={words.account.revoke}
          keep={words.account.keep}
          onClose={() => setAsked(undefined)}
          act={async () => {
            await api.DELETE("/v1/keys/{key_id}", { params: { path: { key_id: asked.key.id } } });
            await refresh();
          }}
        >
          <p>{words.account.revokeHelp}</p>
        </Confirm>
      )}
      {secret !== undefined && (
        <Secret
          title={words.account.secretTitle}
          help={words.account.secretHelp}
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
    <Dialog title={words.account.makeKey} onClose={onClose}>
      <form className={style.form} onSubmit={submit}>
        <div className={style.field}>
          <label htmlFor="key-name">{words.account.keyName}</label>
          <input
            id="key-name"
            name="name"
            required
            maxLength={100}
            autoComplete="off"
            aria-describedby="key-name-help"
          />
          <small id="key-name-help">{words.account.keyNameHelp}</small>
        </div>
        <div className={style.field}>
          <label htmlFor="key-days">{words.account.keyDays}</label>
          <input id="key-days" name="days" type="number" required min={1} max={MOST_DAYS} defaultValue={DEFAULT_DAYS} />
        </div>
        <fieldset>
          <legend>{words.account.keyScopes}</legend>
          {scopes.map((scope) => (
            <label key={scope} className={style.check}>
              <input type="checkbox" name="scope" value={scope} defaultChecked={!scope.startsWith("ops:")} />
              {words.account.scopes[scope] ?? scope}
            </label>
          ))}
        </fieldset>
        {make.isError && <Failure error={make.error} />}
        <div className={style.buttons}>
          <Button type="submit" kind="main" busy={make.isPending}>
            {words.account.make}
          </Button>
          <Button onClick={onClose}>{words.account.cancel}</Button>
        </div>
      </form>
    </Dialog>
  );
}
