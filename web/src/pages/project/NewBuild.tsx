import { useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { useLocation } from "wouter";
import { api, dataOf, idempotencyKey, Problem, type Schemas } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";
import { RequestKey } from "../../api/requestKey.ts";
import { Button, ButtonLink } from "../../parts/Button.tsx";
import { Field } from "../../parts/Field.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { paths } from "../../paths.ts";
import { newIdea as newIdeaWords } from "../../words/new-idea.ts";
import { product as productWords } from "../../words/product.ts";
import { BuildOptions, type Options } from "../new-idea/BuildOptions.tsx";
import { buildMistakes, type Mistakes } from "../new-idea/draft.ts";
import style from "./Project.module.css";
import type { Start } from "./start.ts";
import { useVersions } from "./Versions.tsx";

const text = productWords;

interface Props {
  project: Schemas["ProjectOut"];
  start: Start | undefined;
  /** Choose another start; undefined: the newest version. */
  begin: (start: Start | undefined) => void;
}

/** The form that starts a build of a project that exists. */
export function NewBuild({ project, start, begin }: Props) {
  const newest = project.last_build_version;
  const versions = useVersions(project.id, newest).data?.pages.flatMap((page) => page.versions) ?? [];
  const stored = versions.filter((each) => each.snapshot !== null);
  const [options, setOptions] = useState<Options>({
    goal: newest === 0 ? newIdeaWords.review.firstGoal : "",
    policy: "sleep",
    nights: "30",
  });
  const [mistakes, setMistakes] = useState<Mistakes>({});
  const [problem, setProblem] = useState<Error>();
  const [isBusy, setBusy] = useState(false);
  const [key] = useState(() => new RequestKey(idempotencyKey));
  const inFlight = useRef(false);
  const form = useRef<HTMLFormElement>(null);
  const client = useQueryClient();
  const [, navigate] = useLocation();

  const chosen = start?.snapshot === undefined ? versions.find((each) => each.build_id === start?.buildId) : undefined;
  const isOther = start !== undefined && chosen === undefined;
  const value = start === undefined ? "" : isOther ? "other" : start.buildId;

  function changed() {
    setMistakes({});
    setProblem(undefined);
  }

  function show(found: Mistakes) {
    setMistakes(found);
    const [first] = Object.keys(found);
    requestAnimationFrame(() => form.current?.querySelector<HTMLElement>(`[data-field="${first}"]`)?.focus());
  }

  async function submit() {
    if (inFlight.current) return;
    const found = buildMistakes(options, newIdeaWords.mistakes);
    if (Object.keys(found).length > 0) return show(found);
    inFlight.current = true;
    setBusy(true);
    setProblem(undefined);
    const body: Schemas["NewBuild"] = {
      goal: options.goal.trim(),
      sleep_policy: options.policy === "stop" ? "stop" : "sleep",
      max_nights: Number(options.nights),
      ...(start === undefined ? {} : { start_from: { build_id: start.buildId, snapshot: start.snapshot ?? null } }),
    };
    try {
      const build = await dataOf(
        api.POST("/v1/projects/{project_id}/builds", {
          params: { path: { project_id: project.id }, header: { "idempotency-key": key.of(body) } },
          body,
        }),
      );
      void client.invalidateQueries({ queryKey: keys.projects() });
      void client.invalidateQueries({ queryKey: keys.builds() });
      navigate(paths.build(build.id));
    } catch (error) {
      if (error instanceof Problem && error.kind === "invalid-request" && error.errors.length > 0) {
        show(Object.fromEntries(error.errors.map((each) => [each.field, each.message])));
      } else setProblem(error as Error);
    } finally {
      inFlight.current = false;
      setBusy(false);
    }
  }

  const openBuild = problem instanceof Problem && problem.kind === "open-build" ? problem.body.build_id : undefined;
  return (
    <form
      ref={form}
      className={style.form}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <p className={style.quiet}>{newest === 0 ? text.firstBuildHelp : text.newBuildHelp}</p>
      {(stored.length > 0 || isOther) && (
        <Field label={text.startFrom} error={mistakes.start_from}>
          {(control) => (
            <select
              {...control}
              data-field="start_from"
              value={value}
              onChange={(event) => {
                changed();
                begin(event.target.value === "" ? undefined : { buildId: event.target.value });
              }}
            >
              <option value="">{newest === 0 ? text.nothing : text.newest(newest)}</option>
              {isOther && <option value="other">{text.otherStart(start.snapshot)}</option>}
              {stored
                .filter((each) => !each.is_current || each.build_id === value)
                .map((each) => (
                  <option key={each.build_id} value={each.build_id}>
                    {text.earlier(each.version)}
                  </option>
                ))}
            </select>
          )}
        </Field>
      )}
      {chosen !== undefined && chosen.version < newest && (
        <p className={style.rollback}>{text.rollback(chosen.version, newest + 1)}</p>
      )}
      <BuildOptions
        options={options}
        update={(change) => {
          changed();
          setOptions((before) => ({ ...before, ...change }));
        }}
        mistakes={mistakes}
      />
      {problem !== undefined && (
        <Notice
          kind="bad"
          alert
          title={openBuild === undefined ? printable(problem.message) : newIdeaWords.problems.openBuild}
        >
          {typeof openBuild === "string" && <ButtonLink to={paths.build(openBuild)}>{text.watch}</ButtonLink>}
        </Notice>
      )}
      <div>
        <Button kind="main" type="submit" busy={isBusy}>
          {text.start}
        </Button>
      </div>
    </form>
  );
}
