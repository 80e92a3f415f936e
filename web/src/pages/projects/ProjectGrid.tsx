import { type InfiniteData, type UseInfiniteQueryResult, useInfiniteQuery } from "@tanstack/react-query";
import { useEffect, useId, useState } from "react";
import { Link } from "wouter";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";
import { Button, ButtonLink } from "../../parts/Button.tsx";
import { Field } from "../../parts/Field.tsx";
import { Picture } from "../../parts/Picture.tsx";
import { printable } from "../../parts/printable.ts";
import { Status } from "../../parts/Status.tsx";
import { Time } from "../../parts/Time.tsx";
import { paths } from "../../paths.ts";
import { projects as projectsWords } from "../../words/projects.ts";
import { named } from "./lists.ts";
import style from "./Projects.module.css";

const text = projectsWords;
const PAGE = 24;

type ProjectsQuery = UseInfiniteQueryResult<InfiniteData<Schemas["ProjectList"]>>;

/** The user's projects, or those in the archive, page by page. */
export function useProjects(archived: boolean): ProjectsQuery {
  return useInfiniteQuery({
    queryKey: [...keys.projects(), "list", archived],
    queryFn: ({ pageParam }) =>
      dataOf(
        api.GET("/v1/projects", {
          params: { query: { archived, limit: PAGE, ...(pageParam === undefined ? {} : { cursor: pageParam }) } },
        }),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next_cursor ?? undefined,
    refetchInterval: () => (document.visibilityState === "visible" ? 30_000 : false),
  });
}

interface Props {
  projects: ProjectsQuery;
  title: string;
  canSearch?: boolean;
}

/** A grid of projects, with a search among them. */
export function ProjectGrid({ projects, title, canSearch = false }: Props) {
  const [query, setQuery] = useState("");
  const titleId = useId();
  const { data, hasNextPage, isFetchingNextPage, isError, fetchNextPage } = projects;
  const all = data?.pages.flatMap((page) => page.projects) ?? [];
  const shown = named(all, query);
  const isSearching = query.trim() !== "";
  // A search is among all projects, so the pages that are not here yet are fetched.
  useEffect(() => {
    if (isSearching && hasNextPage && !isFetchingNextPage && !isError) void fetchNextPage();
  }, [isSearching, hasNextPage, isFetchingNextPage, isError, fetchNextPage]);

  return (
    <section aria-labelledby={titleId}>
      <div className={style.sectionHead}>
        <h2 id={titleId}>{title}</h2>
        {canSearch && (all.length > 6 || hasNextPage || isSearching) && (
          <div className={style.search} role="search">
            <Field label={<span className="visually-hidden">{text.search}</span>}>
              {(control) => (
                <input
                  {...control}
                  type="search"
                  placeholder={text.search}
                  value={query}
                  onChange={(event) => setQuery(event.target.value)}
                />
              )}
            </Field>
          </div>
        )}
      </div>
      <p role="status" className={isSearching && shown.length === 0 ? undefined : "visually-hidden"}>
        {isSearching &&
          (shown.length === 0 && !hasNextPage ? text.none(printable(query.trim())) : text.found(shown.length))}
      </p>
      <ul className={style.grid}>
        {shown.map((project) => (
          <ProjectCard key={project.id} project={project} />
        ))}
      </ul>
      {hasNextPage && !isSearching && (
        <Button busy={isFetchingNextPage} onClick={() => void fetchNextPage()}>
          {text.more}
        </Button>
      )}
    </section>
  );
}

function ProjectCard({ project }: { project: Schemas["ListedProject"] }) {
  const name = printable(project.name);
  const { latest_build: build, latest_version: version } = project;
  const readyAt = version?.ready_at;
  return (
    <li className={style.card}>
      {project.poster ? (
        <Picture className={style.poster} path={project.poster} alt={text.poster(name)} />
      ) : (
        <div className={`${style.poster} ${style.initial}`} aria-hidden>
          {[...name.trim()][0]}
        </div>
      )}
      <div className={style.cardBody}>
        <h3>
          <Link to={paths.project(project.id)} className={style.cardLink}>
            <bdi>{name}</bdi>
          </Link>
        </h3>
        <p className={style.quiet}>
          {version ? text.version(version.version) : build ? text.noVersion : text.notBuilt}
          {readyAt && (
            <>
              {text.ready} <Time at={readyAt} as="ago" />
            </>
          )}
        </p>
        <div className={style.cardActions}>
          <ButtonLink to={paths.project(project.id)} small>
            {text.open} <span className="visually-hidden">{name}</span>
          </ButtonLink>
          {version && (
            <ButtonLink to={paths.buildTab(version.build_id, "preview")} small>
              {text.preview} <span className="visually-hidden">{name}</span>
            </ButtonLink>
          )}
          {build && build.status !== "ready" && <Status status={build.status} waitingFor={build.waiting_for} />}
        </div>
      </div>
    </li>
  );
}
