import { Link, Route, Switch, useLocation } from "wouter";
import { useMe } from "../../api/queries.ts";
import { isOperator } from "../../api/rights.ts";
import { Failure } from "../../parts/Failure.tsx";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { paths } from "../../paths.ts";
import { fleet as words } from "../../words/fleet.ts";
import NotFound from "../NotFound.tsx";
import { Controls } from "./Controls.tsx";
import style from "./Fleet.module.css";
import { Fleet } from "./Fleet.tsx";
import { FleetBuild } from "./FleetBuild.tsx";
import { FleetUser } from "./FleetUser.tsx";
import { Spend } from "./Spend.tsx";
import { Stuck } from "./Stuck.tsx";

/** The operators' pages. Everyone else finds nothing at their addresses. */
export default function FleetPages() {
  const me = useMe();
  if (me.isPending) return <Skeleton page={words.title} />;
  if (me.isError) return <Failure page={words.title} error={me.error} retry={me.refetch} />;
  if (!isOperator(me.data)) return <NotFound />;
  return (
    <div className={style.page}>
      <Sections />
      <Switch>
        <Route path="/fleet" component={Fleet} />
        <Route path="/fleet/stuck" component={Stuck} />
        <Route path="/fleet/spend" component={Spend} />
        <Route path="/fleet/controls" component={Controls} />
        <Route path="/fleet/builds/:id">{({ id }) => <FleetBuild key={id} id={id} />}</Route>
        <Route path="/fleet/users/:id">{({ id }) => <FleetUser key={id} user={decodeURIComponent(id)} />}</Route>
        <Route component={NotFound} />
      </Switch>
    </div>
  );
}

function Sections() {
  const [location] = useLocation();
  const sections = [
    [paths.fleet(), words.builds],
    [paths.fleetStuck(), words.stuck],
    [paths.fleetSpend(), words.spend],
    [paths.fleetControls(), words.controls],
  ] as const;
  return (
    <nav className={style.sections} aria-label={words.sections}>
      {sections.map(([path, text]) => (
        <Link key={path} to={path} aria-current={location === path ? "page" : undefined}>
          {text}
        </Link>
      ))}
    </nav>
  );
}
