import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
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

const QUERY = ["webhooks"] as const;

/** While a delivery is under way, its list is read again this often, in milliseconds. */
const REFRESH = 2_000;

const PAGE = 20;

/** Seconds for which the old secret signs too. */
const OVERLAP = 86_400;

type Webhook = Schemas["WebhookOut"];
type Asked = { what: "make" } | { what: "delete" | "deliveries" | "rotate"; webhook: Webhook };

/** The webhooks of the organisations that the user owns. */
export function Webhooks() {
  const client = useQueryClient();
  const list = useQuery({ queryKey: QUERY, queryFn: () => dataOf(api.GET("/v1/webhooks")) });
  const [asked, setAsked] = useState<Asked>();
  const [secret, setSecret] = useState<{ of: "new" | "rotated"; text: string }>();
  const refresh = () => client.invalidateQueries({ queryKey: QUERY });
  const change = useMutation({
    mutationFn: ({ id, enabled }: { id: string; enabled: boolean }) =>
      dataOf(api.PATCH("/v1/webhooks/{webhook_id}", { params: { path: { webhook_id: id } }, body: { enabled } })),
    onSuccess: refresh,
  });
  const test = useMutation({
    mutationFn: (webhook: Webhook) =>
      dataOf(api.POST("/v1/webhooks/{webhook_id}/test", { params: { path: { webhook_id: webhook.id } } })),
    onSuccess: (_, webhook) => setAsked({ what: "deliveries", webhook }),
  });
  return (
    <section className={style.card} aria-labelledby="webhooks">
      <div className={style.head}>
        <h2 id="webhooks">{accountWords.webhooks}</h2>
        <Button onClick={() => setAsked({ what: "make" })}>
          <Icon name="plus" /> {accountWords.makeWebhook}
        </Button>
      </div>
      <p className={style.help}>{accountWords.webhooksHelp}</p>
      {list.isPending && <Skeleton />}
      {list.isError && <Failure error={list.error} retry={list.refetch} />}
      {change.isError && <Failure error={change.error} />}
      {test.isError && <Failure error={test.error} />}
      {list.data?.webhooks.length === 0 && <p className={style.help}>{accountWords.noWebhooks}</p>}
      <ul className={style.list}>
        {list.data?.webhooks.map((webhook) => (
          <Item
            key={webhook.id}
            title={
              <>
                <bdi>{printable(webhook.url)}</bdi>
                <small>{webhook.topics.map((topic) => accountWords.topics[topic] ?? topic).join(" · ")}</small>
                {webhook.disabled_reason && <small>{printable(webhook.disabled_reason)}</small>}
              </>
            }
            facts={[
              [accountWords.state, webhook.enabled ? accountWords.on : accountWords.off],
              [accountWords.created, <Time key="made" at={webhook.created_at} as="ago" />],
              ...(webhook.old_secret_until
                ? ([[accountWords.oldSecretUntil, <Time key="old" at={webhook.old_secret_until} />]] as const)
                : []),
            ]}
          >
            {webhook.enabled && (
              <Button small busy={test.isPending} onClick={() => test.mutate(webhook)}>
                {accountWords.test}
              </Button>
            )}
            <Button small onClick={() => setAsked({ what: "deliveries", webhook })}>
              {accountWords.deliveries}
            </Button>
            <Button small onClick={() => change.mutate({ id: webhook.id, enabled: !webhook.enabled })}>
              {webhook.enabled ? accountWords.switchOff : accountWords.switchOn}
            </Button>
            <Button small onClick={() => setAsked({ what: "rotate", webhook })}>
              {accountWords.rotateSecret}
            </Button>
            <Button small kind="danger" onClick={() => setAsked({ what: "delete", webhook })}>
              {accountWords.delete}
            </Button>
          </Item>
        ))}
      </ul>
      {asked?.what === "make" && (
        <NewWebhook
          onClose={() => setAsked(undefined)}
          onMade={(made) => {
            setAsked(undefined);
            setSecret({ of: "new", text: made });
            refresh();
          }}
        />
      )}
      {asked?.what === "rotate" && (
        <Rotation
          webhook={asked.webhook}
          onClose={() => setAsked(undefined)}
          onRotated={(made) => {
            setAsked(undefined);
            setSecret({ of: "rotated", text: made });
            refresh();
          }}
        />
      )}
      {asked?.what === "deliveries" && <Deliveries webhook={asked.webhook} onClose={() => setAsked(undefined)} />}
      {asked?.what === "delete" && (
        <Confirm
          danger
          title={accountWords.deleteTitle}
          verb={accountWords.delete}
          keep={accountWords.keep}
          onClose={() => setAsked(undefined)}
          act={async () => {
            await api.DELETE("/v1/webhooks/{webhook_id}", { params: { path: { webhook_id: asked.webhook.id } } });
            await refresh();
          }}
        >
          <p>{accountWords.deleteHelp}</p>
        </Confirm>
      )}
      {secret !== undefined && (
        <Secret
          title={accountWords.webhookSecretTitle[secret.of]}
          help={accountWords.webhookSecretHelp}
          secret={secret.text}
          onClose={() => setSecret(undefined)}
        />
      )}
    </section>
  );
}

/** Asks how long the old secret signs too, and makes a new one. */
function Rotation({
  webhook,
  onClose,
  onRotated,
}: {
  webhook: Webhook;
  onClose: () => void;
  onRotated: (secret: string) => void;
}) {
  const [hasLeaked, setHasLeaked] = useState(false);
  const rotate = useMutation({
    mutationFn: () =>
      dataOf(
        api.POST("/v1/webhooks/{webhook_id}/rotate", {
          params: { path: { webhook_id: webhook.id } },
          body: { overlap_seconds: hasLeaked ? 0 : OVERLAP },
        }),
      ),
    onSuccess: (made) => onRotated(made.secret),
  });
  return (
    <Dialog
      title={accountWords.rotateSecretTitle}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{accountWords.keep}</Button>
          <Button kind="main" busy={rotate.isPending} onClick={() => rotate.mutate()}>
            {accountWords.rotateSecretVerb}
          </Button>
        </>
      }
    >
      <p>{accountWords.rotateSecretHelp}</p>
      <label className={style.check}>
        <input type="checkbox" checked={hasLeaked} onChange={(event) => setHasLeaked(event.target.checked)} />
        {accountWords.secretHasLeaked}
      </label>
      {rotate.isError && <Failure error={rotate.error} />}
    </Dialog>
  );
}

function NewWebhook({ onClose, onMade }: { onClose: () => void; onMade: (secret: string) => void }) {
  const owned = useMe().data?.organisations.filter((organisation) => organisation.role === "owner") ?? [];
  const make = useMutation({
    mutationFn: (body: Schemas["NewWebhook"]) => dataOf(api.POST("/v1/webhooks", { body })),
    onSuccess: (made) => onMade(made.secret),
  });

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (make.isPending) return;
    const form = new FormData(event.currentTarget);
    make.mutate({
      url: String(form.get("url")).trim(),
      topics: form.getAll("topic") as Schemas["Topic"][],
      description: "",
      organisation_id: String(form.get("organisation") ?? "") || null,
    });
  }

  const topics = Object.entries(accountWords.topics).filter(([topic]) => topic !== "webhook.test");
  return (
    <Dialog title={accountWords.makeWebhook} onClose={onClose}>
      <form className={style.form} onSubmit={submit}>
        <div className={style.field}>
          <label htmlFor="webhook-url">{accountWords.webhookUrl}</label>
          <input id="webhook-url" name="url" type="url" required maxLength={2000} aria-describedby="webhook-url-help" />
          <small id="webhook-url-help">{accountWords.webhookUrlHelp}</small>
        </div>
        {owned.length > 1 && (
          <div className={style.field}>
            <label htmlFor="webhook-organisation">{accountWords.webhookOrganisation}</label>
            <select id="webhook-organisation" name="organisation">
              {owned.map((organisation) => (
                <option key={organisation.id} value={organisation.id}>
                  {printable(organisation.name)}
                </option>
              ))}
            </select>
          </div>
        )}
        <fieldset>
          <legend>{accountWords.webhookTopics}</legend>
          {topics.map(([topic, text]) => (
            <label key={topic} className={style.check}>
              <input type="checkbox" name="topic" value={topic} defaultChecked />
              {text}
            </label>
          ))}
        </fieldset>
        {make.isError && <Failure error={make.error} />}
        <div className={style.buttons}>
          <Button type="submit" kind="main" busy={make.isPending}>
            {accountWords.makeWebhook}
          </Button>
          <Button onClick={onClose}>{accountWords.cancel}</Button>
        </div>
      </form>
    </Dialog>
  );
}

/** What was sent to a webhook; read again while something is under way. */
function Deliveries({ webhook, onClose }: { webhook: Webhook; onClose: () => void }) {
  const client = useQueryClient();
  const queryKey = [...QUERY, webhook.id];
  const path = { webhook_id: webhook.id };
  const list = useInfiniteQuery({
    queryKey,
    queryFn: ({ pageParam }) =>
      dataOf(
        api.GET("/v1/webhooks/{webhook_id}/deliveries", {
          params: { path, query: { limit: PAGE, ...(pageParam === undefined ? {} : { cursor: pageParam }) } },
        }),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next_cursor ?? undefined,
    refetchInterval: (query) =>
      query.state.data?.pages.some((page) => page.deliveries.some((each) => each.ended_at === null)) ? REFRESH : false,
  });
  const deliveries = list.data?.pages.flatMap((page) => page.deliveries);
  const replay = useMutation({
    mutationFn: (id: string) =>
      dataOf(
        api.POST("/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay", {
          params: { path: { ...path, delivery_id: id } },
        }),
      ),
    onSuccess: () => client.invalidateQueries({ queryKey }),
  });
  return (
    <Dialog title={accountWords.deliveriesOf(printable(webhook.url))} onClose={onClose}>
      {list.isPending && <Skeleton />}
      {list.isError && <Failure error={list.error} retry={list.refetch} />}
      {replay.isError && <Failure error={replay.error} />}
      {deliveries?.length === 0 && <p>{accountWords.noDeliveries}</p>}
      <ul className={style.list}>
        {deliveries?.map((delivery) => (
          <li key={delivery.id} className={style.delivery}>
            <p className={style.title}>
              {accountWords.topics[delivery.topic] ?? delivery.topic}
              <small>
                <Time at={delivery.created_at} /> · {accountWords.attempts(delivery.attempts)}
                {delivery.next_attempt_at && delivery.attempts > 0 && (
                  <>
                    {" "}
                    · {accountWords.next} <Time at={delivery.next_attempt_at} as="ago" />
                  </>
                )}
              </small>
              {delivery.error && <small>{printable(delivery.error)}</small>}
            </p>
            <span>
              {accountWords.deliveryStates[delivery.state as keyof typeof accountWords.deliveryStates] ??
                delivery.state}
            </span>
            {delivery.ended_at !== null && (
              <Button small onClick={() => replay.mutate(delivery.id)}>
                {accountWords.replay}
              </Button>
            )}
          </li>
        ))}
      </ul>
      {list.hasNextPage && (
        <Button small busy={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>
          {accountWords.moreDeliveries}
        </Button>
      )}
    </Dialog>
  );
}
