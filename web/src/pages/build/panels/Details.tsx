import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Link } from "wouter";
import { api, dataOf, type Schemas } from "../../../api/client.ts";
import { keys, useMe } from "../../../api/queries.ts";
import { Copy } from "../../../parts/Copy.tsx";
import { ExternalLink } from "../../../parts/ExternalLink.tsx";
import { Failure } from "../../../parts/Failure.tsx";
import { printable } from "../../../parts/printable.ts";
import { size } from "../../../parts/size.ts";
import { duration, Time, useNow } from "../../../parts/Time.tsx";
import { paths } from "../../../paths.ts";
import { panels as panelsWords } from "../../../words/panels.ts";
import style from "./Details.module.css";
import type { PanelProps } from "./Panels.tsx";
import { Push } from "./Push.tsx";
import { useSnapshots } from "./queries.ts";
import { Secrets } from "./Secrets.tsx";

type Build = Schemas["BuildOut"];

/** What else is known of a build: ids, model, snapshots with downloads, pushing, secrets; for operators, money. */
export default function Details({ build, mayChange }: PanelProps) {
  const me = useMe();
  return (
    <div className={style.panel}>
      <Facts build={build} />
      <Snapshots build={build} />
      {mayChange && <Push build={build} />}
      <Secrets project={build.project_id} mayChange={mayChange} />
      {me.data?.is_operator && <ForOperators build={build} temporal={me.data.server.temporal_ui_url} />}
    </div>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

function Facts({ build }: { build: Build }) {
  const now = useNow(60);
  const path = { build_id: build.id };
  const progress = useQuery({
    queryKey: keys.ofBuild(build.id, "progress"),
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}/progress", { params: { path } })),
  });
  const project = useQuery({
    queryKey: keys.project(build.project_id),
    queryFn: () => dataOf(api.GET("/v1/projects/{project_id}", { params: { path: { project_id: build.project_id } } })),
  });
  const w = panelsWords.details;
  const ended = build.closed_at ? new Date(build.closed_at).getTime() : now;
  const settings = Object.entries(build.settings ?? {});
  return (
    <section>
      <h3>{w.build}</h3>
      <dl className={style.facts}>
        <Fact name={w.id}>
          <span className={style.id}>
            <code>{build.id}</code> <Copy text={build.id} />
          </span>
        </Fact>
        <Fact name={w.project}>
          <Link to={paths.project(build.project_id)}>{printable(build.project_name)}</Link>
        </Fact>
        <Fact name={w.startedBy}>{printable(build.started_by)}</Fact>
        <Fact name={w.created}>
          <Time at={build.created_at} />
        </Fact>
        {build.started_at && (
          <Fact name={build.closed_at ? w.closed : w.started}>
            <Time at={build.closed_at ?? build.started_at} />,{" "}
            {w.took(duration((ended - new Date(build.started_at).getTime()) / 1000))}
          </Fact>
        )}
        <Fact name={w.model}>{build.model_label ? printable(build.model_label) : w.modelUnknown}</Fact>
        <Fact name={w.policy}>{w.policies[build.sleep_policy] ?? build.sleep_policy}</Fact>
        <Fact name={w.nights}>
          {w.nightsOf(build.max_nights)}
          {progress.data !== undefined && `; ${w.slept(progress.data.sleeps.length)}`}
        </Fact>
        <Fact name={w.version}>{build.build_version ?? w.noVersion}</Fact>
        <Fact name={w.phases}>{build.phases_completed}</Fact>
        <Fact name={w.turns}>{build.turn}</Fact>
        {project.data !== undefined && (
          <Fact name={w.brief}>
            {w.briefVersions(project.data.brief_version ?? null, project.data.interview_version ?? null)}.{" "}
            <small className={style.quiet}>{w.briefHelp}</small>
          </Fact>
        )}
        <Fact name={w.sandbox}>
          {build.sandbox_id ? <code>{printable(build.sandbox_id)}</code> : w.noSandbox}
          {build.sandbox_hours >= 0.05 && `, ${w.sandboxHours(build.sandbox_hours)}`}
        </Fact>
        {build.workspace_path && (
          <Fact name={w.workspace}>
            <code>{printable(build.workspace_path)}</code>
          </Fact>
        )}
        {settings.length > 0 && (
          <Fact name={w.changed}>
            {settings.map(([name, value]) => (
              <div key={name}>
                <code>{printable(`${name} = ${JSON.stringify(value)}`)}</code>
              </div>
            ))}
          </Fact>
        )}
      </dl>
    </section>
  );
}

function Snapshots({ build }: { build: Build }) {
  const snapshots = useSnapshots(build.id);
  const w = panelsWords.details;
  const listed = snapshots.data?.snapshots ?? [];
  const address = (number: number, format: string) =>
    `/v1/builds/${encodeURIComponent(build.id)}/snapshots/${number}/archive?format=${format}`;
  return (
    <section>
      <h3>{w.snapshots}</h3>
      {snapshots.isError && <Failure error={snapshots.error} retry={() => snapshots.refetch()} />}
      {snapshots.data !== undefined && listed.length === 0 && <p className={style.quiet}>{w.noSnapshots}</p>}
      {listed.length > 0 && (
        <ul className={style.snapshots}>
          {listed.map((each) => (
            <li key={each.number} className={style.snapshot}>
              <span className={style.number}>{each.number}</span>
              <span className={style.what}>
                <span>
                  {w.reasons[each.reason] ?? printable(each.reason)}
                  {each.final && <span className={style.mark}>{w.final}</span>}
                  {each.kept && <span className={style.mark}>{w.kept}</span>}
                </span>
                <span className={style.quiet}>
                  {each.stored_at && <Time at={each.stored_at} as="ago" />}
                  {each.files !== null && `, ${panelsWords.list.count(each.files)}`}
                  {each.bytes !== null && `, ${size(each.bytes)}`}
                  {each.commit && (
                    <>
                      , <code title={each.commit}>{each.commit.slice(0, 7)}</code>
                    </>
                  )}
                </span>
              </span>
              <span className={style.get}>
                {(["tar.gz", "zip"] as const).map((format) => (
                  <a
                    key={format}
                    href={address(each.number, format)}
                    download
                    aria-label={w.download(each.number, format)}
                  >
                    {format}
                  </a>
                ))}
              </span>
            </li>
          ))}
        </ul>
      )}
      {listed.length > 0 && <p className={style.quiet}>{w.keptHelp}</p>}
    </section>
  );
}

function ForOperators({ build, temporal }: { build: Build; temporal: string | null | undefined }) {
  const usage = useQuery({
    queryKey: ["usage"] as const,
    queryFn: () => dataOf(api.GET("/v1/usage")),
    staleTime: 30_000,
  });
  const w = panelsWords.details;
  const used = usage.data?.builds.find(({ build_id }) => build_id === build.id);
  const written = used ? used.cache_write_5m_tokens + used.cache_write_1h_tokens : 0;
  const all = used ? used.input_tokens + written + used.cache_read_tokens : 0;
  const wake = `temporal workflow signal --workflow-id build-${build.id} --name wake`;
  return (
    <section>
      <h3>{w.operators}</h3>
      <dl className={style.facts}>
        {typeof build.cost_microdollars === "number" && (
          <Fact name={w.cost}>
            {w.money(build.cost_microdollars)}
            {typeof build.judge_cost_microdollars === "number" &&
              `; ${w.judgeCost(w.money(build.judge_cost_microdollars))}`}
          </Fact>
        )}
        {used !== undefined && (
          <Fact name={w.tokens}>
            {w.tokenClasses(used.input_tokens, written, used.cache_read_tokens, used.output_tokens)}
            {all > 0 && `; ${w.cacheShare(Math.round((100 * used.cache_read_tokens) / all))}`}
          </Fact>
        )}
        {temporal && (
          <Fact name={w.temporal}>
            <ExternalLink href={`${temporal}/workflows/build-${build.id}`}>{w.openTemporal}</ExternalLink>
          </Fact>
        )}
        <Fact name={w.wake}>
          <span className={style.id}>
            <code>{wake}</code> <Copy text={wake} />
          </span>
        </Fact>
      </dl>
    </section>
  );
}
