import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";
import { useAccountNews } from "../../api/useAccountNews.ts";
import { Button } from "../../parts/Button.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { clock } from "../../parts/Time.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { projects as projectsWords } from "../../words/projects.ts";
import { FirstIdea } from "./FirstIdea.tsx";
import { openBuilds } from "./lists.ts";
import { NeedsYou, Running } from "./OpenBuilds.tsx";
import { ProjectGrid, useProjects } from "./ProjectGrid.tsx";
import style from "./Projects.module.css";

const text = projectsWords;
const OPEN = [...keys.builds(), "open"];

/** The home page: what needs its reader, what runs, and all projects. */
export default function Projects() {
  usePageTitle(text.title);
  const askAgainAfter = useAccountNews(OPEN);
  const builds = useQuery({
    queryKey: OPEN,
    queryFn: () => dataOf(api.GET("/v1/builds", { params: { query: { open: true, limit: 100 } } })),
    refetchInterval: askAgainAfter,
    refetchIntervalInBackground: true,
  });
  const projects = useProjects(false);
  const [isArchiveShown, setArchiveShown] = useState(false);
  useRefreshOf(builds.data?.builds);
  const failed = [builds, projects].find((query) => query.isError);

  if (builds.data === undefined || projects.data === undefined) {
    if (failed?.error) return <Failure page={text.title} error={failed.error} retry={() => void failed.refetch()} />;
    return <Skeleton page={text.title} />;
  }
  const { needYou, running } = openBuilds(builds.data.builds);
  const isEmpty = projects.data.pages[0]?.projects.length === 0 && builds.data.builds.length === 0;
  const since = Math.min(builds.dataUpdatedAt, projects.dataUpdatedAt);
  return (
    <div className={style.page}>
      <h1 className={isEmpty ? "visually-hidden" : undefined}>{text.title}</h1>
      {failed?.error && (
        <div>
          <Failure error={failed.error} retry={() => void failed.refetch()} />
          <p className={style.quiet}>{text.stale(clock(new Date(since), true))}</p>
        </div>
      )}
      <div className={failed === undefined ? style.lists : `${style.lists} ${style.stale}`}>
        {needYou.length > 0 && <NeedsYou builds={needYou} />}
        {running.length > 0 && <Running builds={running} />}
        {isEmpty ? <FirstIdea /> : <ProjectGrid projects={projects} title={text.all} canSearch />}
        <div>
          <Button small kind="quiet" aria-expanded={isArchiveShown} onClick={() => setArchiveShown(!isArchiveShown)}>
            {isArchiveShown ? text.hideArchived : text.showArchived}
          </Button>
        </div>
        {isArchiveShown && <Archive />}
      </div>
    </div>
  );
}

/** Reads the projects again when a build has begun, ended or changed its status. */
function useRefreshOf(builds: Schemas["BuildOut"][] | undefined) {
  const client = useQueryClient();
  const statuses = builds?.map((build) => `${build.id} ${build.status}`).join();
  const before = useRef(statuses);
  useEffect(() => {
    if (before.current !== undefined && before.current !== statuses) {
      void client.invalidateQueries({ queryKey: keys.projects() });
    }
    before.current = statuses;
  }, [client, statuses]);
}

function Archive() {
  const projects = useProjects(true);
  if (projects.isError) return <Failure error={projects.error} retry={() => void projects.refetch()} />;
  if (projects.data === undefined) return <Skeleton />;
  if (projects.data.pages[0]?.projects.length === 0) return <p>{text.noArchived}</p>;
  return <ProjectGrid projects={projects} title={text.archived} />;
}
