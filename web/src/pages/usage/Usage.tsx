import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { Link } from "wouter";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { useAccount } from "../../api/queries.ts";
import { Button } from "../../parts/Button.tsx";
import { csv } from "../../parts/csv.ts";
import { download } from "../../parts/download.ts";
import { Failure } from "../../parts/Failure.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { money } from "../../parts/money.ts";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { Scroll } from "../../parts/Scroll.tsx";
import { InOrder, Skeleton } from "../../parts/Skeleton.tsx";
import { duration, Time, useNow } from "../../parts/Time.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { paths } from "../../paths.ts";
import { words } from "../../words/index.ts";
import { usage as usageWords } from "../../words/usage.ts";
import { allTokens, inputTokens, sumsByDay } from "./sums.ts";
import style from "./Usage.module.css";

const NUMBER = new Intl.NumberFormat();
const SHORT = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });

/** Today's allowance, and what the builds of some days have used. */
export default function Usage() {
  usePageTitle(usageWords.title);
  return (
    <InOrder className={style.page}>
      <h1>{usageWords.title}</h1>
      <Today />
      <Days />
    </InOrder>
  );
}

function Today() {
  const account = useAccount();
  const now = useNow(30);
  if (account.isPending) return <Skeleton />;
  if (account.isError) return <Failure error={account.error} retry={account.refetch} />;
  const { budget, plan, renewal_day: renewalDay, suspended, open_builds: openBuilds } = account.data;
  const refresh = new Date(budget.refreshes_at);
  return (
    <section className={style.card} aria-labelledby="today">
      <h2 id="today">{usageWords.today}</h2>
      {suspended && <Notice kind="bad" title={usageWords.suspended} />}
      <Gauge budget={budget} />
      <dl className={style.facts}>
        <div>
          <dt>{usageWords.reset}</dt>
          <dd>
            <Time at={budget.refreshes_at} as="utc" />, {usageWords.in(duration((refresh.getTime() - now) / 1000))}
          </dd>
        </div>
        <div>
          <dt>{usageWords.plan}</dt>
          <dd>{printable(plan)}</dd>
        </div>
        <div>
          <dt>{usageWords.renewal}</dt>
          <dd>{renewalDay}</dd>
        </div>
        <div>
          <dt>{usageWords.openBuilds}</dt>
          <dd>
            {openBuilds.length === 0
              ? usageWords.noneOpen
              : openBuilds.map((id) => (
                  <Link key={id} to={paths.build(id)} className={style.id}>
                    {id.slice(0, 8)}
                  </Link>
                ))}
          </dd>
        </div>
        {budget.allowance !== null && budget.allowance !== undefined && (
          <div>
            <dt>{usageWords.cost}</dt>
            <dd>
              {money(budget.spent ?? 0)} / {money(budget.allowance)}
            </dd>
          </div>
        )}
      </dl>
      <details>
        <summary>{usageWords.why}</summary>
        <p>{usageWords.whyText}</p>
        <ul>
          {Object.values(usageWords.marks).map((text) => (
            <li key={text}>{text}</li>
          ))}
          <li>{usageWords.reserved}</li>
        </ul>
      </details>
    </section>
  );
}

/** The large meter, up to the ceiling of 110 %, with the marks where something changes. */
function Gauge({ budget }: { budget: Schemas["BudgetOut"] }) {
  const { percent, level } = budget;
  if (percent === null || percent === undefined) return <p className={style.percent}>{words.meter.unlimited}</p>;
  return (
    <div className={`${style.gauge} ${style[level] ?? ""}`}>
      <p className={style.percent}>{words.meter.used(percent, level)}</p>
      <div
        className={style.track}
        role="meter"
        aria-valuemin={0}
        aria-valuemax={110}
        aria-valuenow={Math.min(percent, 110)}
        aria-valuetext={words.meter.used(percent, level)}
        aria-label={words.meter.label}
      >
        <span className={style.fill} style={{ inlineSize: `${(Math.min(percent, 110) / 110) * 100}%` }} />
        {[60, 90, 100].map((mark) => (
          <span key={mark} className={style.mark} style={{ insetInlineStart: `${(mark / 110) * 100}%` }} />
        ))}
      </div>
      <div className={style.scale} aria-hidden>
        {[60, 90, 100].map((mark) => (
          <span key={mark} style={{ insetInlineStart: `${(mark / 110) * 100}%` }}>
            {mark}
          </span>
        ))}
      </div>
    </div>
  );
}

function Days() {
  const [range, setRange] = useState<{ from?: string; to?: string }>({});
  const usage = useQuery({
    queryKey: ["usage", range],
    queryFn: () => dataOf(api.GET("/v1/usage", { params: { query: range } })),
    placeholderData: keepPreviousData,
  });
  // An answer that fails leaves the last one, and the form with which to ask for other days.
  const last = useRef<Schemas["UsageOut"]>(undefined);
  if (usage.data !== undefined) last.current = usage.data;
  if (usage.isPending) return <Skeleton lines={6} />;
  return (
    <>
      {usage.isError && <Failure error={usage.error} retry={usage.refetch} />}
      {last.current !== undefined && <Tables usage={last.current} onRange={setRange} />}
    </>
  );
}

function Tables({
  usage,
  onRange,
}: {
  usage: Schemas["UsageOut"];
  onRange: (range: { from?: string; to?: string }) => void;
}) {
  const withMoney = usage.cost_microdollars !== null && usage.cost_microdollars !== undefined;
  const sums = sumsByDay(usage.days, usage.from, usage.to);
  const most = Math.max(1, ...sums.map((sum) => sum.tokens));
  return (
    <section className={style.card} aria-labelledby="range">
      <h2 id="range">{usageWords.range}</h2>
      <form
        className={style.range}
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          onRange({
            from: String(form.get("from") || "") || undefined,
            to: String(form.get("to") || "") || undefined,
          });
        }}
      >
        <label>
          {usageWords.from}
          <input type="date" name="from" defaultValue={usage.from} />
        </label>
        <label>
          {usageWords.to}
          <input type="date" name="to" defaultValue={usage.to} />
        </label>
        <Button type="submit">{usageWords.show}</Button>
        <Button kind="quiet" onClick={() => downloadDays(usage, withMoney)} disabled={usage.days.length === 0}>
          <Icon name="download" /> {usageWords.csv}
        </Button>
      </form>
      {usage.days.length === 0 ? (
        <p className={style.quiet}>{usageWords.empty}</p>
      ) : (
        <>
          <div className={style.bars} aria-hidden>
            {sums.map((sum) => (
              <span key={sum.day} className={style.bar} title={barTitle(sum)}>
                <span style={{ blockSize: `${(sum.tokens / most) * 100}%` }} />
              </span>
            ))}
          </div>
          <Scroll className={style.scroll} label={usageWords.byDay}>
            <table>
              <caption>{usageWords.byDayCaption}</caption>
              <thead>
                <tr>
                  <th scope="col">{usageWords.day}</th>
                  <th scope="col">{usageWords.model}</th>
                  <NumberHeads />
                  <th scope="col" className="number">
                    {usageWords.share}
                  </th>
                  {withMoney && (
                    <th scope="col" className="number">
                      {usageWords.cost}
                    </th>
                  )}
                </tr>
              </thead>
              <tbody>
                {[...usage.days].reverse().map((day) => (
                  <tr key={`${day.day} ${day.model}`}>
                    <th scope="row">
                      <time dateTime={day.day}>{DAY.format(new Date(day.day))}</time>
                    </th>
                    <td>{printable(day.model)}</td>
                    <Numbers usage={day} />
                    <td className="number">{typeof day.percent === "number" ? `${day.percent} %` : "–"}</td>
                    {withMoney && <td className="number">{money(day.cost_microdollars ?? 0)}</td>}
                  </tr>
                ))}
              </tbody>
              {withMoney && (
                <tfoot>
                  <tr>
                    <th scope="row" colSpan={7}>
                      {usageWords.total}
                    </th>
                    <td className="number">{money(usage.cost_microdollars ?? 0)}</td>
                  </tr>
                </tfoot>
              )}
            </table>
          </Scroll>
          <Scroll className={style.scroll} label={usageWords.byBuild}>
            <table>
              <caption>{usageWords.byBuildCaption}</caption>
              <thead>
                <tr>
                  <th scope="col">{usageWords.project}</th>
                  <th scope="col">{usageWords.build}</th>
                  <NumberHeads />
                  {withMoney && (
                    <th scope="col" className="number">
                      {usageWords.cost}
                    </th>
                  )}
                </tr>
              </thead>
              <tbody>
                {usage.builds.map((build) => (
                  <tr key={build.build_id}>
                    <th scope="row">
                      <Link to={paths.project(build.project_id)}>
                        <bdi>{printable(build.project_name)}</bdi>
                      </Link>
                    </th>
                    <td>
                      <Link to={paths.build(build.build_id)} className={style.id}>
                        {build.build_id.slice(0, 8)}
                      </Link>
                    </td>
                    <Numbers usage={build} />
                    {withMoney && <td className="number">{money(build.cost_microdollars ?? 0)}</td>}
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        </>
      )}
    </section>
  );
}

function NumberHeads() {
  return [usageWords.calls, usageWords.input, usageWords.cached, usageWords.output].map((text) => (
    <th key={text} scope="col" className="number">
      {text}
    </th>
  ));
}

function Numbers({ usage }: { usage: Schemas["DayUsage"] | Schemas["BuildUsage"] }) {
  return [usage.calls, inputTokens(usage), usage.cache_read_tokens, usage.output_tokens].map((value, index) => (
    <td key={index} className="number" title={NUMBER.format(value)}>
      {SHORT.format(value)}
    </td>
  ));
}

function barTitle(sum: { day: string; tokens: number; percent: number | undefined }): string {
  const share = sum.percent === undefined ? "" : usageWords.ofAllowance(sum.percent);
  return usageWords.bar(DAY.format(new Date(sum.day)), SHORT.format(sum.tokens), share);
}

/** Hand the days to the browser as a file. */
function downloadDays(usage: Schemas["UsageOut"], withMoney: boolean): void {
  const head = ["day", "model", "calls", "input_tokens", "cache_read_tokens", "output_tokens", "all_tokens", "percent"];
  const rows = usage.days.map((day) => [
    ...[day.day, day.model, day.calls, inputTokens(day), day.cache_read_tokens, day.output_tokens, allTokens(day)],
    day.percent,
    ...(withMoney ? [day.cost_microdollars] : []),
  ]);
  const text = csv([withMoney ? [...head, "cost_microdollars"] : head, ...rows]);
  download(`cofounder-usage-${usage.from}-to-${usage.to}.csv`, text, "text/csv");
}
