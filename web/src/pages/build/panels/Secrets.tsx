import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useId, useRef } from "react";
import { api, dataOf } from "../../../api/client.ts";
import { keys } from "../../../api/queries.ts";
import { Button } from "../../../parts/Button.tsx";
import { Failure } from "../../../parts/Failure.tsx";
import { Notice } from "../../../parts/Notice.tsx";
import { printable } from "../../../parts/printable.ts";
import { Time } from "../../../parts/Time.tsx";
import { panels as panelsWords } from "../../../words/panels.ts";
import style from "./Details.module.css";
import { Field } from "./Field.tsx";

/** The names of the product's secrets; their values only go in. */
export function Secrets({ project, mayChange }: { project: string; mayChange: boolean }) {
  const w = panelsWords.details;
  const id = useId();
  const field = useRef<HTMLInputElement>(null);
  const client = useQueryClient();
  const key = [...keys.project(project), "secrets"];
  const path = { project_id: project };
  const secrets = useQuery({
    queryKey: key,
    queryFn: () => dataOf(api.GET("/v1/projects/{project_id}/secrets", { params: { path } })),
  });
  const changed = () => client.invalidateQueries({ queryKey: key });
  const set = useMutation({
    // What a mutation is called with is remembered, so the value is not among it.
    mutationFn: (name: string) => {
      const value = field.current?.value ?? "";
      if (field.current) field.current.value = "";
      return dataOf(
        api.PUT("/v1/projects/{project_id}/secrets/{name}", { params: { path: { ...path, name } }, body: { value } }),
      );
    },
    onSuccess: changed,
  });
  const remove = useMutation({
    mutationFn: (name: string) =>
      api.DELETE("/v1/projects/{project_id}/secrets/{name}", { params: { path: { ...path, name } } }),
    onSuccess: changed,
  });
  const listed = secrets.data?.secrets ?? [];

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    set.mutate(String(new FormData(event.currentTarget).get("name")).trim());
  }

  return (
    <section>
      <h3>{w.secrets}</h3>
      <p className={style.quiet}>{w.secretsHelp}</p>
      {secrets.isError && <Failure error={secrets.error} retry={() => secrets.refetch()} />}
      {secrets.data !== undefined && listed.length === 0 && <p>{w.noSecrets}</p>}
      <ul className={style.secrets}>
        {listed.map(({ name, set_at }) => (
          <li key={name} className={style.secret}>
            <code>{printable(name)}</code>
            <span className={style.quiet}>
              {w.setAt} <Time at={set_at} as="ago" />
            </span>
            {mayChange && (
              <Button
                small
                kind="danger"
                busy={remove.isPending && remove.variables === name}
                aria-label={w.removeSecret(printable(name))}
                onClick={() => remove.mutate(name)}
              >
                {w.remove}
              </Button>
            )}
          </li>
        ))}
      </ul>
      {remove.isError && <Failure error={remove.error} />}
      {mayChange && (
        <details className={style.fold}>
          <summary>{w.setSecret}</summary>
          <form className={style.form} onSubmit={submit} autoComplete="off">
            <Field id={`${id}name`} label={w.secretName}>
              <input name="name" required spellCheck={false} placeholder="STRIPE_API_KEY" />
            </Field>
            <Field id={`${id}value`} label={w.secretValue}>
              <input name="value" type="password" required autoComplete="new-password" ref={field} />
            </Field>
            <Button type="submit" busy={set.isPending}>
              {w.set}
            </Button>
            {set.isError && <Failure error={set.error} />}
            {set.data !== undefined && <Notice kind="good" title={w.secretSet(printable(set.data.name))} alert />}
          </form>
        </details>
      )}
    </section>
  );
}
