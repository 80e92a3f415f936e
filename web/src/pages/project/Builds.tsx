import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";
import { Button } from "../../parts/Button.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Status } from "../../parts/Status.tsx";
import { duration, Time, useNow } from "../../parts/Time.tsx";
import { paths } from "../../paths.ts";
import { product as productWords } from "../../words/product.ts";
import style from "./Project.module.css";

const text = productWords;

/** All builds of a project, the newest first. */
export function Builds({ projectId }: { projectId: string }) {
  const now = useNow(10);
  const builds = useInfiniteQuery({
    queryKey: [...keys.project(projectId), "builds"],
    queryFn: ({ pageParam }) =>
      dataOf(
        api.GET("/v1/projects/{project_id}/builds", {
          params: {
            path: { project_id: projectId },
            query: { limit: 20, ...(pageParam === undefined ? {} : { cursor: pageParam }) },
          },
        }),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next_cursor ?? undefined,
    refetchInterval: 30_000,
  });
  const all = builds.data?.pages.flatMap((page) => page.builds) ?? [];
  return (
    <section className={style.section} aria-labelledby="builds">
      <h2 id="builds">{text.builds}</h2>
      {builds.isPending && <Skeleton />}
      {builds.isError && <Failure error={builds.error} retry={() => void builds.refetch()} />}
      {builds.data !== undefined && all.length === 0 && <p className={style.quiet}>{text.noBuild}</p>}
      {all.length > 0 && (
        <table className={style.builds}>
          <thead>
            <tr>
              <th scope="col">{text.goal}</th>
              <th scope="col">{text.status}</th>
              <th scope="col" className="number">
                {text.phasesColumn}
              </th>
              <th scope="col" className="number">
                {text.took}
              </th>
              <th scope="col">{text.started}</th>
            </tr>
          </thead>
          <tbody>
            {all.map((build) => (
              <tr key={build.id}>
                <td>
                  <Link to={paths.build(build.id)} className={style.goalLink}>
                    {printable(build.goal)}
                  </Link>
                  {build.build_version !== null && (
                    <span className={style.quiet}>{text.version(build.build_version)}</span>
                  )}
                </td>
                <td>
                  <Status status={build.status} waitingFor={build.waiting_for} />
                </td>
                <td className="number" data-label={text.phasesColumn}>
                  {build.phases_completed}
                </td>
                <td className="number" data-label={text.took}>
                  {duration(seconds(build, now))}
                </td>
                <td data-label={text.started}>
                  <Time at={build.created_at} as="ago" />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {builds.hasNextPage && (
        <Button busy={builds.isFetchingNextPage} onClick={() => void builds.fetchNextPage()}>
          {text.moreBuilds}
        </Button>
      )}
    </section>
  );
}

function seconds(build: Schemas["BuildOut"], now: number): number {
  const end = build.closed_at === null ? now : Date.parse(build.closed_at);
  return (end - Date.parse(build.created_at)) / 1000;
}
