import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useId, useRef } from "react";
import { api, dataOf, type Schemas } from "../../../api/client.ts";
import { Button } from "../../../parts/Button.tsx";
import { Failure } from "../../../parts/Failure.tsx";
import { Notice } from "../../../parts/Notice.tsx";
import { printable } from "../../../parts/printable.ts";
import { panels as panelsWords } from "../../../words/panels.ts";
import style from "./Details.module.css";
import { Field } from "./Field.tsx";
import { useSnapshots } from "./queries.ts";

/** Pushes the code to a git server. The token is in the field and in the request, and nowhere else. */
export function Push({ build }: { build: Schemas["BuildOut"] }) {
  const snapshots = useSnapshots(build.id);
  const id = useId();
  const token = useRef<HTMLInputElement>(null);
  const push = useMutation({
    // What a mutation is called with is remembered, so the token is not among it.
    mutationFn: (body: Omit<Schemas["NewPush"], "token">) => {
      const secret = token.current?.value ?? "";
      if (token.current) token.current.value = "";
      return dataOf(
        api.POST("/v1/builds/{build_id}/push", {
          params: { path: { build_id: build.id } },
          body: { ...body, token: secret },
        }),
      );
    },
  });
  const w = panelsWords.details;
  const listed = snapshots.data?.snapshots ?? [];
  if (listed.length === 0) return null;

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const text = (name: string) => String(form.get(name) ?? "").trim();
    push.mutate({
      url: text("url"),
      ...(text("username") === "" ? {} : { username: text("username") }),
      ...(text("branch") === "" ? {} : { branch: text("branch") }),
      ...(text("snapshot") === "" ? {} : { snapshot: Number(text("snapshot")) }),
    } as Omit<Schemas["NewPush"], "token">);
  }

  return (
    <details className={style.fold}>
      <summary>{w.push}</summary>
      <form className={style.form} onSubmit={submit} autoComplete="off">
        <p className={style.quiet}>{w.pushHelp}</p>
        <Field id={`${id}url`} label={w.url} help={w.urlHelp}>
          <input name="url" type="url" required pattern="https://.*" placeholder="https://git.example.com/me/app.git" />
        </Field>
        <Field id={`${id}token`} label={w.token} help={w.tokenHelp}>
          <input name="token" type="password" required autoComplete="new-password" ref={token} />
        </Field>
        <Field id={`${id}branch`} label={w.branch} help={w.branchHelp}>
          <input name="branch" spellCheck={false} />
        </Field>
        <Field id={`${id}username`} label={w.username} help={w.usernameHelp}>
          <input name="username" spellCheck={false} autoComplete="off" />
        </Field>
        <Field id={`${id}snapshot`} label={w.ofSnapshot}>
          <select name="snapshot">
            <option value="">{w.current}</option>
            {listed.map(({ number }) => (
              <option key={number} value={number}>
                {number}
              </option>
            ))}
          </select>
        </Field>
        <Button type="submit" busy={push.isPending}>
          {w.pushNow}
        </Button>
        {push.isPending && <p role="status">{w.pushing}</p>}
        {push.isError && <Failure error={push.error} />}
        {push.data !== undefined && (
          <Notice kind="good" alert>
            {(push.data.is_new ? w.pushed : w.pushedAlready)(
              printable(push.data.branch),
              printable(push.data.repository),
            )}
          </Notice>
        )}
      </form>
    </details>
  );
}
