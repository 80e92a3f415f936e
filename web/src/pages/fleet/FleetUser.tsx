import { useQuery } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { Link } from "wouter";
import { api, dataOf, Problem, type Schemas } from "../../api/client.ts";
import { useMe } from "../../api/queries.ts";
import { mayOperate } from "../../api/rights.ts";
import { Button } from "../../parts/Button.tsx";
import { Confirm } from "../../parts/Confirm.tsx";
import { Copy } from "../../parts/Copy.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Meter } from "../../parts/Meter.tsx";
import { money } from "../../parts/money.ts";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { InOrder, Skeleton } from "../../parts/Skeleton.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { paths } from "../../paths.ts";
import { fleet as words } from "../../words/fleet.ts";
import { AccountDialog, TopUpDialog } from "./AccountDialogs.tsx";
import { BuildTable } from "./BuildTable.tsx";
import { Card } from "./Card.tsx";
import { accountKey, forUser, useBuilds, useChangeAccount } from "./data.ts";
import style from "./Fleet.module.css";
import { apiQuery, readFilter, writeFilter } from "./filter.ts";
import { Table } from "./Table.tsx";

const text = words.userPage;
const SHORT = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

/** One user: the account with its money, what operators change of it, the builds, and what they cost by day. */
export function FleetUser({ user }: { user: string }) {
  usePageTitle(text.title(user));
  const account = useQuery({
    queryKey: accountKey(user),
    queryFn: () => dataOf(api.GET("/v1/account", { params: forUser(user) })),
  });
  return (
    <>
      <h1>
        <bdi>{printable(user)}</bdi> <Copy text={user} />
      </h1>
      {account.isPending && <Skeleton />}
      {account.isError && <Missing error={account.error} retry={account.refetch} />}
      {account.data !== undefined && (
        <InOrder className={style.page}>
          <Account account={account.data} user={user} />
          <Builds user={user} />
          <Days user={user} />
        </InOrder>
      )}
    </>
  );
}

function Missing({ error, retry }: { error: Error; retry: () => void }) {
  if (!(error instanceof Problem) || error.status !== 404) return <Failure error={error} retry={retry} />;
  return <Notice kind="info" title={text.notThere} />;
}

function Account({ account, user }: { account: Schemas["AccountOut"]; user: string }) {
  const canAct = mayOperate(useMe().data);
  const [asked, setAsked] = useState<"change" | "top-up" | "suspend">();
  const change = useChangeAccount(user);
  const { budget } = account;
  const models = Object.entries(account.models).map(([role, model]) => `${role}: ${model}`);
  const facts: [string, ReactNode][] = [
    [text.plan, printable(account.plan)],
    [text.renewal, account.renewal_day],
    [text.models, models.length === 0 ? text.planModels : printable(models.join(", "))],
    [
      text.today,
      <>
        {money(budget.spent ?? 0)}
        {budget.allowance !== null &&
          budget.allowance !== undefined &&
          ` ${words.facts.ofLimit(money(budget.allowance))}`}
        <small>
          <Meter budget={budget} />
        </small>
      </>,
    ],
    [text.reserved, money(budget.reserved ?? 0)],
    [text.toppedUp, money(account.topped_up ?? 0)],
    [text.openBuilds, account.open_builds.length],
  ];
  return (
    <Card id="account" title={text.account}>
      {account.suspended && <Notice kind="bad" title={text.suspended} />}
      <dl className={style.figures}>
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {canAct && (
        <div className={style.buttons}>
          <Button kind="main" onClick={() => setAsked("top-up")}>
            {text.topUp}
          </Button>
          <Button onClick={() => setAsked("change")}>{text.change}</Button>
          <Button kind={account.suspended ? "plain" : "danger"} onClick={() => setAsked("suspend")}>
            {account.suspended ? text.unsuspend : text.suspend}
          </Button>
        </div>
      )}
      {asked === "top-up" && <TopUpDialog user={user} onClose={() => setAsked(undefined)} />}
      {asked === "change" && <AccountDialog user={user} account={account} onClose={() => setAsked(undefined)} />}
      {asked === "suspend" && (
        <Confirm
          danger={!account.suspended}
          title={account.suspended ? text.unsuspendTitle(user) : text.suspendTitle(user)}
          verb={account.suspended ? text.unsuspend : text.suspend}
          onClose={() => setAsked(undefined)}
          act={() => change({ suspended: !account.suspended })}
        >
          <p>{account.suspended ? text.unsuspendHelp : text.suspendHelp}</p>
        </Confirm>
      )}
    </Card>
  );
}

function Builds({ user }: { user: string }) {
  const [sort, setSort] = useState("-created_at");
  const filter = { ...readFilter("shown=all"), lists: { user: [user] }, sort };
  const builds = useBuilds(apiQuery(filter));
  return (
    <section className={style.list} aria-labelledby="builds">
      <h2 id="builds">{words.builds}</h2>
      {builds.isPending && <Skeleton />}
      {builds.isError && <Failure error={builds.error} retry={() => void builds.refetch()} />}
      {builds.data !== undefined && (
        <BuildTable
          builds={builds.data.pages.flatMap((page) => page.builds)}
          total={builds.data.pages[0]?.total ?? 0}
          sort={sort}
          onSort={setSort}
          selected={undefined}
          onSelect={() => undefined}
          hasMore={builds.hasNextPage}
          isLoadingMore={builds.isFetchingNextPage}
          onMore={() => void builds.fetchNextPage()}
          isOld={builds.isPlaceholderData}
        />
      )}
      {!builds.isPending && (
        <p>
          <Link to={paths.fleet(writeFilter({ ...filter, sort: "-created_at" }))}>{text.inTheList}</Link>
        </p>
      )}
    </section>
  );
}

function Days({ user }: { user: string }) {
  const usage = useQuery({
    queryKey: [...accountKey(user), "usage"],
    queryFn: () => dataOf(api.GET("/v1/usage", { params: forUser(user) })),
  });
  return (
    <Card id="days" title={text.days}>
      {usage.isPending && <Skeleton />}
      {usage.isError && <Failure error={usage.error} retry={usage.refetch} />}
      {usage.data !== undefined && (
        <Table
          caption={text.daysCaption}
          empty={text.noDays}
          heads={[text.day, text.model, text.calls, text.tokens, text.share, text.cost]}
          numbersFrom={2}
          rows={[...usage.data.days].reverse().map((day) => ({
            key: `${day.day} ${day.model}`,
            cells: [
              <time key="day" dateTime={day.day}>
                {day.day}
              </time>,
              printable(day.model),
              day.calls.toLocaleString(),
              SHORT.format(allTokens(day)),
              typeof day.percent === "number" ? `${day.percent} %` : "–",
              money(day.cost_microdollars ?? 0),
            ],
          }))}
          foot={[text.together, "", "", "", "", money(usage.data.cost_microdollars ?? 0)]}
        />
      )}
    </Card>
  );
}

function allTokens(day: Schemas["DayUsage"]): number {
  const input = day.input_tokens + day.cache_write_5m_tokens + day.cache_write_1h_tokens + day.cache_read_tokens;
  return input + day.output_tokens;
}
