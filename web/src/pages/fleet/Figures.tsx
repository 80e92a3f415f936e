import type { ReactNode } from "react";
import { Link } from "wouter";
import type { Schemas } from "../../api/client.ts";
import { Icon, type IconName } from "../../parts/Icon.tsx";
import { money } from "../../parts/money.ts";
import { printable } from "../../parts/printable.ts";
import { paths } from "../../paths.ts";
import { fleet as words } from "../../words/fleet.ts";
import style from "./Fleet.module.css";
import { type Filter, showsTheSame, writeFilter } from "./filter.ts";
import { counts, filterOf, TILES, type Tile } from "./tiles.ts";

type FleetOut = Schemas["FleetOut"];

const LOOKS: Record<Tile, { icon: IconName; hue: string }> = {
  working: { icon: "work", hue: "info" },
  sleeping: { icon: "moon", hue: "rest" },
  founder: { icon: "question", hue: "warn" },
  operator: { icon: "warning", hue: "bad" },
  waiting: { icon: "clock", hue: "rest" },
  queued: { icon: "queue", hue: "info" },
  failed: { icon: "error", hue: "bad" },
};

/** How many builds are how. Each tile shows its builds in the list, and those of before when it is pressed again. */
export function Tiles({ fleet, filter }: { fleet: FleetOut; filter: Filter }) {
  const found = counts(fleet.builds);
  return (
    <nav className={style.tiles} aria-label={words.tiles.title}>
      {TILES.map((tile) => {
        const own = filterOf(tile);
        const isShown = showsTheSame(filter, own);
        const look = LOOKS[tile];
        return (
          <Link
            key={tile}
            to={paths.fleet(isShown ? "" : writeFilter(own))}
            className={`${style.tile} ${found[tile] > 0 ? style[look.hue] : ""}`}
            aria-current={isShown ? "true" : undefined}
          >
            <span className={style.count}>{found[tile].toLocaleString()}</span>
            <span className={style.tileName}>
              <Icon name={look.icon} /> {words.tiles[tile]}
            </span>
          </Link>
        );
      })}
    </nav>
  );
}

/** What the builds depend on: money, sandboxes, services, switches, the reaper and the processes. */
export function Facts({ fleet }: { fleet: FleetOut }) {
  const { spend_today: spend, reaper, switches } = fleet;
  const text = words.facts;
  const limit = spend.limit_microdollars;
  const permits = fleet.permits.find(({ kind }) => kind === "all");
  const away = fleet.dependencies.filter(({ state }) => state !== "up");
  const alerts = reaper.steps.filter(({ alert }) => alert !== null).length;
  const workers = fleet.workers.filter(({ role }) => role === "worker").length;
  const isOverLimit = limit !== null && spend.spent_microdollars + spend.reserved_microdollars >= limit;
  const reaperState = reaper.paused === null ? text.reaperUnknown : reaper.paused ? text.reaperPaused : text.reaperRuns;
  return (
    <section aria-label={text.title}>
      <dl className={style.facts}>
        <Fact name={text.spendToday} to={paths.fleetSpend()} isBad={isOverLimit}>
          <strong>{money(spend.spent_microdollars)}</strong>{" "}
          {limit === null ? text.noLimit : text.ofLimit(money(limit))}
          {spend.reserved_microdollars > 0 && <small>{text.reserved(money(spend.reserved_microdollars))}</small>}
        </Fact>
        <Fact name={text.permits} to={paths.fleetControls()} isBad={(permits?.queued ?? 0) > 0}>
          <strong>{text.permitsUsed(permits?.used ?? 0, permits?.quota ?? null)}</strong>,{" "}
          {text.permitsQueued(permits?.queued ?? 0)}
        </Fact>
        <Fact name={text.dependencies} to={paths.fleetControls()} isBad={away.length > 0}>
          {away.length === 0
            ? text.allUp
            : text.down(away.map(({ name }) => words.dependency[name] ?? name).join(", "))}
        </Fact>
        <Fact name={text.switches} to={paths.fleetControls()} isBad={switches.length > 0}>
          {switches.length === 0 ? text.allOn : text.off(switches.length)}
        </Fact>
        <Fact name={text.reaper} to={paths.fleetControls()} isBad={reaper.paused !== false || alerts > 0}>
          {reaperState}
          {alerts > 0 && text.alerts(alerts)}
          {reaper.note && reaper.paused && <small>{printable(reaper.note)}</small>}
        </Fact>
        <Fact name={text.workers} to={paths.fleetControls()} isBad={workers === 0}>
          {text.processes(workers, fleet.workers.length - workers)}
        </Fact>
        <Fact name={text.turns}>{fleet.turns_last_minute.toLocaleString()}</Fact>
      </dl>
    </section>
  );
}

interface FactProps {
  name: string;
  /** The page that says more. */
  to?: string;
  /** An operator has to look at it. */
  isBad?: boolean;
  children: ReactNode;
}

function Fact({ name, to, isBad = false, children }: FactProps) {
  return (
    <div className={isBad ? style.attention : undefined}>
      <dt>
        {isBad && <Icon name="warning" size={14} />} {to === undefined ? name : <Link to={to}>{name}</Link>}
      </dt>
      <dd>{children}</dd>
    </div>
  );
}
