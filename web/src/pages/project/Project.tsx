import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { useSearchParams } from "wouter";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { keys, useMe } from "../../api/queries.ts";
import { mayChange } from "../../api/rights.ts";
import { useAccountNews } from "../../api/useAccountNews.ts";
import { Boundary } from "../../parts/Boundary.tsx";
import { Button, ButtonLink } from "../../parts/Button.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Field } from "../../parts/Field.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { InOrder, Skeleton } from "../../parts/Skeleton.tsx";
import { isEnded, Status } from "../../parts/Status.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { paths } from "../../paths.ts";
import { exports as exportWords } from "../../words/exports.ts";
import { product as productWords } from "../../words/product.ts";
import { Exports } from "../account/Exports.tsx";
import { Builds } from "./Builds.tsx";
import { useChangeProject } from "./change.ts";
import { NewBuild } from "./NewBuild.tsx";
import { Ownership } from "./Ownership.tsx";
import style from "./Project.module.css";
import { Secrets } from "./Secrets.tsx";
import { parseStart, type Start } from "./start.ts";
import { Versions } from "./Versions.tsx";

const text = productWords;

/** A product: its versions, its builds, and what belongs to it. `?from=BUILD[:SNAPSHOT]` opens a new build from there. */
export default function Project({ id }: { id: string }) {
  const project = useQuery({
    queryKey: keys.project(id),
    queryFn: () => dataOf(api.GET("/v1/projects/{project_id}", { params: { path: { project_id: id } } })),
  });
  const { newest, isPending } = useNewestBuild(id);
  const me = useMe();
  usePageTitle(project.data?.name ?? text.title);
  if (project.data !== undefined && !isPending && !me.isPending)
    return <Product project={project.data} newest={newest} />;
  if (project.isError) return <Failure page={text.title} error={project.error} retry={() => void project.refetch()} />;
  return <Skeleton page={text.title} />;
}

/** The newest build of the project, read again when it changes. With its status, the rest of the page changes. */
function useNewestBuild(projectId: string): { newest: Schemas["BuildOut"] | undefined; isPending: boolean } {
  const queryKey = [...keys.builds(), "newest of", projectId];
  const client = useQueryClient();
  const askAgainAfter = useAccountNews(queryKey);
  const { data, isPending } = useQuery({
    queryKey,
    queryFn: () =>
      dataOf(
        api.GET("/v1/projects/{project_id}/builds", {
          params: { path: { project_id: projectId }, query: { limit: 1 } },
        }),
      ),
    refetchInterval: askAgainAfter,
  });
  const newest = data?.builds[0];
  const status = newest && `${newest.id} ${newest.status}`;
  const before = useRef(status);
  useEffect(() => {
    if (before.current !== undefined && before.current !== status) {
      void client.invalidateQueries({ queryKey: keys.project(projectId) });
    }
    before.current = status;
  }, [client, projectId, status]);
  return { newest, isPending };
}

interface ProductProps {
  project: Schemas["ProjectOut"];
  newest: Schemas["BuildOut"] | undefined;
}

function Product({ project, newest }: ProductProps) {
  const me = useMe();
  const [parameters, setParameters] = useSearchParams();
  const newBuild = useRef<HTMLElement>(null);
  const canChange = mayChange(me.data, project.organisation_id);
  const mayExport = me.data?.scopes.includes("account:read") ?? false;
  const isArchived = project.archived_at != null;
  const open = newest !== undefined && !isEnded(newest.status) ? newest : undefined;
  const start = parseStart(parameters.get("from"));

  function beginWith({ buildId, snapshot }: Start) {
    setParameters({ from: snapshot === undefined ? buildId : `${buildId}:${snapshot}` }, { replace: true });
    newBuild.current?.querySelector<HTMLElement>("textarea")?.focus();
    newBuild.current?.scrollIntoView({ block: "center" });
  }

  return (
    <InOrder className={style.page}>
      <Head project={project} newest={newest} canChange={canChange} />
      {me.data !== undefined && !canChange && <Notice kind="info" title={text.viewer} />}
      {isArchived && (
        <Notice kind="info" title={text.archived}>
          {canChange && <Unarchive project={project} />}
        </Notice>
      )}
      {open !== undefined && (
        <Notice kind="info" title={text.beingBuilt}>
          <ButtonLink to={paths.build(open.id)} kind="main">
            {text.watch}
          </ButtonLink>
        </Notice>
      )}
      <Boundary>
        <Versions
          project={project}
          beginWith={canChange && open === undefined && !isArchived ? beginWith : undefined}
        />
      </Boundary>
      {canChange && open === undefined && !isArchived && project.brief !== null && (
        <section ref={newBuild} className={style.section} aria-labelledby="new-build">
          <h2 id="new-build">{text.newBuild}</h2>
          <NewBuild
            project={project}
            start={start}
            begin={(to) => (to === undefined ? setParameters({}, { replace: true }) : beginWith(to))}
          />
        </section>
      )}
      <Boundary>
        <Builds projectId={project.id} />
      </Boundary>
      <Boundary>
        <Secrets projectId={project.id} canChange={canChange} />
      </Boundary>
      {mayExport && (
        <Boundary>
          <section className={style.section} aria-labelledby="exports">
            <h2 id="exports">{exportWords.title}</h2>
            <p className={style.quiet}>{exportWords.projectHelp}</p>
            <Exports projectId={project.id} />
          </section>
        </Boundary>
      )}
      {canChange && (
        <Boundary>
          <Ownership project={project} hasOpenBuild={open !== undefined} />
        </Boundary>
      )}
    </InOrder>
  );
}

interface HeadProps {
  project: Schemas["ProjectOut"];
  newest: Schemas["BuildOut"] | undefined;
  canChange: boolean;
}

function Head({ project, newest, canChange }: HeadProps) {
  const [isRenaming, setRenaming] = useState(false);
  return (
    <header className={style.head}>
      <div className={style.titleRow}>
        <h1>
          <bdi>{printable(project.name)}</bdi>
        </h1>
        {newest !== undefined && <Status status={newest.status} waitingFor={newest.waiting_for} />}
        {canChange && (
          <Button small kind="quiet" onClick={() => setRenaming(true)}>
            {text.rename}
          </Button>
        )}
      </div>
      {project.brief === null ? (
        <Notice kind="info" title={text.noBrief}>
          {canChange && (
            <ButtonLink to={paths.editProject(project.id)} kind="main">
              {text.writeBrief}
            </ButtonLink>
          )}
        </Notice>
      ) : (
        <div className={style.documents}>
          <span>
            {text.brief}, {text.documentVersion(project.brief_version ?? 1)}
            {project.interview_version !== null &&
              ` · ${text.interview}, ${text.documentVersion(project.interview_version)}`}
          </span>
          {canChange && (
            <ButtonLink to={paths.editProject(project.id)} small>
              {text.edit}
            </ButtonLink>
          )}
          <span className={style.quiet}>{text.runningKeep}</span>
        </div>
      )}
      {isRenaming && <Rename project={project} close={() => setRenaming(false)} />}
    </header>
  );
}

function Unarchive({ project }: { project: Schemas["ProjectOut"] }) {
  const change = useChangeProject(project.id);
  const [error, setError] = useState<Error>();
  return (
    <>
      <Button onClick={() => void change({ archived: false }).catch(setError)}>{text.unarchive}</Button>
      {error && <Failure error={error} />}
    </>
  );
}

function Rename({ project, close }: { project: Schemas["ProjectOut"]; close: () => void }) {
  const change = useChangeProject(project.id);
  const [name, setName] = useState(project.name);
  const [error, setError] = useState<Error>();
  const [isBusy, setBusy] = useState(false);

  async function save() {
    if (isBusy || name.trim() === "") return;
    setBusy(true);
    setError(undefined);
    try {
      await change({ name: name.trim() });
      close();
    } catch (failure) {
      setError(failure as Error);
    } finally {
      setBusy(false);
    }
  }

  return (
    <Dialog
      title={text.renameTitle}
      onClose={close}
      actions={
        <Button kind="main" busy={isBusy} aria-disabled={name.trim() === ""} onClick={() => void save()}>
          {text.save}
        </Button>
      }
    >
      <Field label={text.name} error={error?.message}>
        {(control) => (
          <input
            {...control}
            autoFocus
            autoComplete="off"
            value={name}
            onChange={(event) => setName(event.target.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter") {
                event.preventDefault();
                void save();
              }
            }}
          />
        )}
      </Field>
    </Dialog>
  );
}
