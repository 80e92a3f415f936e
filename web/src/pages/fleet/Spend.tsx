import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useLocation, useSearch } from "wouter";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { csv } from "../../parts/csv.ts";
import { download } from "../../parts/download.ts";
import { Failure } from "../../parts/Failure.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { money } from "../../parts/money.ts";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { paths } from "../../paths.ts";
import { fleet as words } from "../../words/fleet.ts";
import { Card } from "./Card.tsx";
import { keys } from "./data.ts";
import style from "./Fleet.module.css";
import { Table } from "./Table.tsx";

type By = Schemas["SpendBy"];
type Spending = Schemas["SpendOut"];

const text = words.spendPage;
const BY: readonly By[] = ["user", "plan", "model", "day"];
const SHORT = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const ROWS = 500;
/** So many of them are listed at first. */
const FIRST = 50;
/** More than this many times the average of the days before is marked, if it is more than this many microdollars a day. */
const SPIKE = { times: 3, least: 1_000_000 };

/** What was spent, by user, plan, model or day. What is asked for is in the address. */
export function Spend() {
  usePageTitle(text.title);
  const [, navigate] = useLocation();
  const asked = new URLSearchParams(useSearch());
  const by = BY.find((each) => each === asked.get("by")) ?? "user";
  const range = { from: asked.get("from") ?? undefined, to: asked.get("to") ?? undefined };
  const spend = useQuery({
    queryKey: [...keys.all, "spend", by, range],
    queryFn: () => dataOf(api.GET("/v1/ops/spend", { params: { query: { by, ...range, limit: ROWS } } })),
    placeholderData: keepPreviousData,
  });

  function show(next: { by: By; from?: string | undefined; to?: string | undefined }) {
    const query = new URLSearchParams({ by: next.by });
    if (next.from) query.set("from", next.from);
    if (next.to) query.set("to", next.to);
    navigate(`${paths.fleetSpend()}?${query}`);
  }

  return (
    <>
      <h1>{text.title}</h1>
      <Card id="spend" title={text.by[by] ?? by}>
        <form
          className={style.inline}
          onSubmit={(event) => {
            event.preventDefault();
            const form = new FormData(event.currentTarget);
            show({ by, from: String(form.get("from") ?? ""), to: String(form.get("to") ?? "") });
          }}
        >
          <label className={style.inlineLabel}>
            {text.rows}
            <select value={by} onChange={(event) => show({ by: event.target.value as By, ...range })}>
              {BY.map((each) => (
                <option key={each} value={each}>
                  {text.by[each]}
                </option>
              ))}
            </select>
          </label>
          <label className={style.inlineLabel}>
            {text.from}
            <input key={spend.data?.from} type="date" name="from" defaultValue={range.from ?? spend.data?.from} />
          </label>
          <label className={style.inlineLabel}>
            {text.to}
            <input key={spend.data?.to} type="date" name="to" defaultValue={range.to ?? spend.data?.to} />
          </label>
          <Button type="submit">{text.show}</Button>
          <Button
            kind="quiet"
            disabled={spend.data === undefined || spend.data.rows.length === 0}
            onClick={() => spend.data && downloadRows(spend.data)}
          >
            <Icon name="download" /> {text.csv}
          </Button>
        </form>
        {spend.isPending && <Skeleton lines={6} />}
        {spend.isError && <Failure error={spend.error} retry={spend.refetch} />}
        {spend.data !== undefined && <Rows spending={spend.data} />}
      </Card>
    </>
  );
}

function Rows({ spending }: { spending: Spending }) {
  const { by, rows } = spending;
  const sum = rows.reduce((total, row) => total + row.spent_microdollars, 0);
  const days = (Date.parse(spending.to) - Date.parse(spending.from)) / 86_400_000 + 1;
  const withBefore = by !== "day";
  const [showsAll, setShowsAll] = useState(false);
  return (
    <>
      <Table
        caption={text.caption(spending.from, spending.to)}
        empty={text.none}
        numbersFrom={1}
        heads={[
          ...[text.keys[by] ?? by, text.spent, text.part],
          ...(withBefore ? [text.before] : []),
          ...[text.calls, text.input, text.cached, text.output],
        ]}
        rows={rows.slice(0, showsAll ? undefined : FIRST).map((row) => ({
          key: row.key,
          cells: [
            <Key key="key" by={by} name={row.key} />,
            money(row.spent_microdollars),
            <Share key="share" share={sum === 0 ? 0 : row.spent_microdollars / sum} />,
            ...(withBefore ? [<Before key="before" row={row} days={days} />] : []),
            row.calls.toLocaleString(),
            SHORT.format(row.input_tokens + row.cache_write_tokens),
            SHORT.format(row.cache_read_tokens),
            SHORT.format(row.output_tokens),
          ],
        }))}
        foot={[text.together, money(sum), ...Array(withBefore ? 6 : 5).fill("")]}
      />
      {rows.length > FIRST && !showsAll && (
        <div>
          <Button onClick={() => setShowsAll(true)}>{text.showAll(rows.length)}</Button>
        </div>
      )}
    </>
  );
}

function Key({ by, name }: { by: By; name: string }) {
  if (by === "user") {
    return (
      <Link to={paths.fleetUser(name)}>
        <bdi>{printable(name)}</bdi>
      </Link>
    );
  }
  if (by === "day") return <time dateTime={name}>{name}</time>;
  return (
    <Link to={paths.fleet(new URLSearchParams({ [by]: name }).toString())}>
      <bdi>{printable(name)}</bdi>
    </Link>
  );
}

function Share({ share }: { share: number }) {
  return (
    <span className={style.share}>
      <span aria-hidden>
        <span style={{ inlineSize: `${share * 100}%` }} />
      </span>
      {Math.round(share * 100)} %
    </span>
  );
}

/** What was spent a day in the week before, marked if it was much less than now. */
function Before({ row, days }: { row: Schemas["SpendRow"]; days: number }) {
  const now = row.spent_microdollars / days;
  const isSpike = now > SPIKE.times * row.before_microdollars && now > SPIKE.least;
  return (
    <>
      {isSpike && (
        <span className={style.spike}>
          <Icon name="warning" size={12} /> {text.spike}{" "}
        </span>
      )}
      {money(row.before_microdollars)}
    </>
  );
}

function downloadRows(spending: Spending): void {
  const head = ["key", "spent_microdollars", "before_microdollars", "calls", "input_tokens", "cache_write_tokens"];
  const rows = spending.rows.map((row) => [
    ...[row.key, row.spent_microdollars, row.before_microdollars, row.calls, row.input_tokens, row.cache_write_tokens],
    ...[row.cache_read_tokens, row.output_tokens],
  ]);
  const content = csv([[...head, "cache_read_tokens", "output_tokens"], ...rows]);
  download(`cofounder-spend-by-${spending.by}-${spending.from}-to-${spending.to}.csv`, content, "text/csv");
}
