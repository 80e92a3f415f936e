import { useEffect, useState } from "react";
import { useLocation, useSearch } from "wouter";
import { useMe } from "../../api/queries.ts";
import { mayOperate } from "../../api/rights.ts";
import { Failure } from "../../parts/Failure.tsx";
import { InOrder, Skeleton } from "../../parts/Skeleton.tsx";
import { clock } from "../../parts/Time.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { paths } from "../../paths.ts";
import { fleet as words } from "../../words/fleet.ts";
import { BuildTable } from "./BuildTable.tsx";
import { BulkBar } from "./BulkBar.tsx";
import { BulkRuns } from "./BulkRuns.tsx";
import { useBuilds, useFleet } from "./data.ts";
import { Facts, Tiles } from "./Figures.tsx";
import { FilterBar } from "./FilterBar.tsx";
import style from "./Fleet.module.css";
import { apiQuery, type Filter, readFilter, writeFilter } from "./filter.ts";
import { TemporalLines } from "./TemporalLines.tsx";

/** All builds: how many are how, the list of those that the address asks for, and acts on many of them. */
export function Fleet() {
  usePageTitle(words.title);
  const search = useSearch();
  const [, navigate] = useLocation();
  const filter = readFilter(search);
  const fleet = useFleet();
  const builds = useBuilds(apiQuery(filter));
  const canAct = mayOperate(useMe().data);
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const shown = writeFilter({ ...filter, sort: "" });
  // With another filter, nothing is selected any more.
  useEffect(() => setSelected(new Set()), [shown]);

  const failed = [fleet, builds].find((query) => query.isError);
  const first = builds.data?.pages[0];
  const rows = builds.data?.pages.flatMap((page) => page.builds) ?? [];

  function show(next: Filter, replace = false) {
    navigate(paths.fleet(writeFilter(next)), { replace });
  }

  return (
    <InOrder className={style.page}>
      <h1 className="visually-hidden">{words.title}</h1>
      {failed?.error && (
        <div>
          <Failure error={failed.error} retry={() => void failed.refetch()} />
          {fleet.dataUpdatedAt > 0 && (
            <p className={style.quiet}>{words.stale(clock(new Date(fleet.dataUpdatedAt), true))}</p>
          )}
        </div>
      )}
      {fleet.data === undefined ? (
        fleet.isPending && <Skeleton />
      ) : (
        <>
          <Tiles fleet={fleet.data} filter={filter} />
          <Facts fleet={fleet.data} />
        </>
      )}
      <BulkRuns canAct={canAct} />
      <section className={style.list} aria-labelledby="builds">
        <h2 id="builds" className="visually-hidden">
          {words.builds}
        </h2>
        <FilterBar filter={filter} fleet={fleet.data} onChange={show} />
        {canAct && first !== undefined && (
          <BulkBar
            selected={selected}
            total={first.total}
            where={first.where}
            onClear={() => setSelected(new Set())}
            isOld={builds.isPlaceholderData}
          />
        )}
        {builds.data === undefined ? (
          builds.isPending && <Skeleton lines={8} />
        ) : (
          <BuildTable
            builds={rows}
            total={first?.total ?? 0}
            sort={filter.sort}
            onSort={(sort) => show({ ...filter, sort })}
            selected={canAct ? selected : undefined}
            onSelect={setSelected}
            hasMore={builds.hasNextPage}
            isLoadingMore={builds.isFetchingNextPage}
            onMore={() => void builds.fetchNextPage()}
            isOld={builds.isPlaceholderData}
          />
        )}
        {first !== undefined && <TemporalLines list={first} />}
      </section>
    </InOrder>
  );
}
