import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";
import { Button, ButtonLink } from "../../parts/Button.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { Picture } from "../../parts/Picture.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { paths } from "../../paths.ts";
import { product as productWords } from "../../words/product.ts";
import style from "./Project.module.css";
import type { Start } from "./start.ts";

const text = productWords;

/** The versions of a project, the newest first. */
export function useVersions(projectId: string, newest: number) {
  return useInfiniteQuery({
    // A new version is another list.
    queryKey: [...keys.project(projectId), "versions", newest],
    queryFn: ({ pageParam }) =>
      dataOf(
        api.GET("/v1/projects/{project_id}/versions", {
          params: { path: { project_id: projectId }, query: pageParam === undefined ? {} : { before: pageParam } },
        }),
      ),
    initialPageParam: undefined as number | undefined,
    getNextPageParam: (last) => last.next_before ?? undefined,
  });
}

interface Props {
  project: Schemas["ProjectOut"];
  /** Choose what the next build begins with; undefined if the reader can't start one. */
  beginWith: ((start: Start) => void) | undefined;
}

export function Versions({ project, beginWith }: Props) {
  const versions = useVersions(project.id, project.last_build_version);
  const all = versions.data?.pages.flatMap((page) => page.versions) ?? [];
  return (
    <section className={style.section} aria-labelledby="versions">
      <h2 id="versions">{text.versions}</h2>
      {versions.isPending && <Skeleton />}
      {versions.isError && <Failure error={versions.error} retry={() => void versions.refetch()} />}
      {versions.data !== undefined && (
        <p className={style.quiet}>{all.length > 0 ? text.versionsHelp : text.noVersion}</p>
      )}
      <ul className={style.versions}>
        {all.map((version) => (
          <VersionCard key={version.version} version={version} beginWith={beginWith} />
        ))}
      </ul>
      {versions.hasNextPage && (
        <Button busy={versions.isFetchingNextPage} onClick={() => void versions.fetchNextPage()}>
          {text.olderVersions}
        </Button>
      )}
    </section>
  );
}

interface CardProps {
  version: Schemas["VersionOut"];
  beginWith: Props["beginWith"];
}

function VersionCard({ version, beginWith }: CardProps) {
  const zip = version.downloads?.find((each) => each.format === "zip");
  const from = version.started_from?.version;
  const isStored = version.snapshot != null;
  return (
    <li className={style.version}>
      <Picture className={style.poster} path={version.poster} alt={text.poster(version.version)} />
      <div className={style.versionBody}>
        <h3>
          {text.version(version.version)}
          {version.is_current && (
            <span className={style.mark}>
              <Icon name="check" size={14} /> {text.current}
            </span>
          )}
        </h3>
        <p className={style.goal}>{printable(version.goal)}</p>
        <p className={style.facts}>
          {version.ready_at !== null && (
            <span>
              {text.ready} <Time at={version.ready_at} as="ago" />
            </span>
          )}
          {version.tests !== null && <span>{text.tests(version.tests)}</span>}
          <span>{text.phases(version.phases)}</span>
          {from != null && from !== version.version - 1 && <span>{text.beganWith(from)}</span>}
          <Link to={paths.build(version.build_id)}>{text.lookAtBuild}</Link>
        </p>
        {!isStored && <p className={style.quiet}>{text.notKept}</p>}
        <div className={style.actions}>
          {isStored && (
            <ButtonLink to={paths.buildTab(version.build_id, "preview")} small>
              {text.openPreview}
            </ButtonLink>
          )}
          <ButtonLink to={paths.buildTab(version.build_id, "changes")} small>
            {text.changes}
          </ButtonLink>
          {zip !== undefined && (
            <ButtonLink to={zip.path} small download>
              <Icon name="download" /> {text.download}
            </ButtonLink>
          )}
          {beginWith !== undefined && isStored && (
            <Button small onClick={() => beginWith({ buildId: version.build_id })}>
              {text.buildFrom}
            </Button>
          )}
        </div>
      </div>
    </li>
  );
}
