import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, dataOf, Problem } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";
import { Button } from "../../parts/Button.tsx";
import { Confirm } from "../../parts/Confirm.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Field } from "../../parts/Field.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { product as productWords } from "../../words/product.ts";
import style from "./Project.module.css";

const text = productWords;

type Asked = { what: "set"; name: string | undefined } | { what: "remove"; name: string };

/** The names of the product's secrets: set, replaced, removed; never read. */
export function Secrets({ projectId, canChange }: { projectId: string; canChange: boolean }) {
  const client = useQueryClient();
  const queryKey = [...keys.project(projectId), "secrets"];
  const path = { project_id: projectId };
  const secrets = useQuery({
    queryKey,
    queryFn: () => dataOf(api.GET("/v1/projects/{project_id}/secrets", { params: { path } })),
  });
  const [asked, setAsked] = useState<Asked>();
  const refresh = () => client.invalidateQueries({ queryKey });
  return (
    <section className={style.section} aria-labelledby="secrets">
      <div className={style.sectionHead}>
        <h2 id="secrets">{text.secrets}</h2>
        {canChange && (
          <Button small onClick={() => setAsked({ what: "set", name: undefined })}>
            <Icon name="key" /> {text.addSecret}
          </Button>
        )}
      </div>
      <p className={style.quiet}>{text.secretsHelp}</p>
      {secrets.isPending && <Skeleton />}
      {secrets.isError && <Failure error={secrets.error} retry={() => void secrets.refetch()} />}
      {secrets.data?.secrets.length === 0 && <p>{text.noSecret}</p>}
      <ul className={style.secrets}>
        {secrets.data?.secrets.map((secret) => (
          <li key={secret.name}>
            <code>{printable(secret.name)}</code>
            <span className={style.quiet}>
              {text.setAt} <Time at={secret.set_at} as="ago" />
            </span>
            {canChange && (
              <span className={style.actions}>
                <Button small kind="quiet" onClick={() => setAsked({ what: "set", name: secret.name })}>
                  {text.replaceSecret} <span className="visually-hidden">{printable(secret.name)}</span>
                </Button>
                <Button small kind="quiet" onClick={() => setAsked({ what: "remove", name: secret.name })}>
                  {text.removeSecret} <span className="visually-hidden">{printable(secret.name)}</span>
                </Button>
              </span>
            )}
          </li>
        ))}
      </ul>
      {asked?.what === "set" && (
        <SetSecret projectId={projectId} name={asked.name} done={refresh} close={() => setAsked(undefined)} />
      )}
      {asked?.what === "remove" && (
        <Confirm
          title={text.removeTitle(printable(asked.name))}
          verb={text.removeSecret}
          danger
          onClose={() => setAsked(undefined)}
          act={async () => {
            const params = { path: { ...path, name: asked.name } };
            await api.DELETE("/v1/projects/{project_id}/secrets/{name}", { params });
            await refresh();
          }}
        >
          <p>{text.removeText}</p>
        </Confirm>
      )}
    </section>
  );
}

interface SetProps {
  projectId: string;
  /** The secret to replace; undefined: a new one. */
  name: string | undefined;
  done: () => Promise<void>;
  close: () => void;
}

function SetSecret({ projectId, name: replaced, done, close }: SetProps) {
  const [name, setName] = useState(replaced ?? "");
  const [value, setValue] = useState("");
  const [error, setError] = useState<Error>();
  const [isBusy, setBusy] = useState(false);
  const isComplete = name.trim() !== "" && value !== "";

  async function set() {
    if (isBusy || !isComplete) return;
    setBusy(true);
    setError(undefined);
    try {
      const params = { path: { project_id: projectId, name: name.trim() } };
      await api.PUT("/v1/projects/{project_id}/secrets/{name}", { params, body: { value } });
      await done();
      close();
    } catch (failure) {
      setError(failure as Error);
    } finally {
      setBusy(false);
    }
  }

  const errors = error instanceof Problem ? error.errors : [];
  const atValue = errors.find((each) => each.field === "value")?.message;
  return (
    <Dialog
      title={replaced === undefined ? text.addSecret : text.replaceTitle(printable(replaced))}
      onClose={close}
      actions={
        <Button kind="main" busy={isBusy} aria-disabled={!isComplete} onClick={() => void set()}>
          {text.setSecret}
        </Button>
      }
    >
      {replaced === undefined && (
        <Field
          label={text.secretName}
          hint={text.secretNameHint}
          error={error !== undefined && atValue === undefined ? error.message : undefined}
        >
          {(control) => (
            <input
              {...control}
              autoComplete="off"
              spellCheck={false}
              autoCapitalize="characters"
              value={name}
              onChange={(event) => setName(event.target.value)}
            />
          )}
        </Field>
      )}
      <Field
        label={text.secretValue}
        hint={text.nextStart}
        error={atValue ?? (replaced === undefined ? undefined : error?.message)}
      >
        {(control) => (
          <input
            {...control}
            type="password"
            autoComplete="off"
            value={value}
            onChange={(event) => setValue(event.target.value)}
          />
        )}
      </Field>
    </Dialog>
  );
}
