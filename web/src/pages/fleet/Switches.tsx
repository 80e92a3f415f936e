import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Confirm } from "../../parts/Confirm.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Field } from "../../parts/Field.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { fleet as words } from "../../words/fleet.ts";
import { Card } from "./Card.tsx";
import { keys, POLL_MS } from "./data.ts";
import style from "./Fleet.module.css";

type SwitchOut = Schemas["SwitchOut"];
type Scope = Schemas["SwitchScope"];

const text = words.switchesPart;
const SCOPES: readonly Scope[] = ["fleet", "plan", "model", "user"];

/** What is switched off, and switching builds off and on. */
export function Switches({ canAct }: { canAct: boolean }) {
  const client = useQueryClient();
  const [asked, setAsked] = useState<"off" | SwitchOut>();
  const switches = useQuery({
    queryKey: [...keys.controls, "switches"],
    queryFn: () => dataOf(api.GET("/v1/ops/switches")),
    refetchInterval: POLL_MS,
  });
  const refresh = () => client.invalidateQueries({ queryKey: keys.all });
  return (
    <Card id="switches" title={text.title}>
      <p className={style.quiet}>{text.help}</p>
      {switches.isPending && <Skeleton />}
      {switches.isError && <Failure error={switches.error} retry={switches.refetch} />}
      {switches.data?.autonomous_agent === false && <Notice kind="bad" title={text.agentOff} />}
      {switches.data?.off.length === 0 && <p>{text.allOn}</p>}
      <ul className={style.plainList}>
        {switches.data?.off.map((each) => (
          <li key={`${each.scope} ${each.key}`}>
            <div>
              <strong>{nameOf(each.scope, each.key)}</strong>
              <small>
                {printable(each.reason)} · {printable(each.by)}, <Time at={each.off_since} as="ago" />
              </small>
            </div>
            {canAct && (
              <Button small onClick={() => setAsked(each)} aria-label={text.switchOnOf(nameOf(each.scope, each.key))}>
                {text.switchOn}
              </Button>
            )}
          </li>
        ))}
      </ul>
      {canAct && (
        <div>
          <Button kind="danger" onClick={() => setAsked("off")}>
            {text.switchOff}
          </Button>
        </div>
      )}
      {asked === "off" && (
        <SwitchOff
          onClose={() => setAsked(undefined)}
          onDone={() => {
            setAsked(undefined);
            void refresh();
          }}
        />
      )}
      {asked !== undefined && asked !== "off" && (
        <Confirm
          title={text.onTitle(nameOf(asked.scope, asked.key))}
          verb={text.switchOn}
          onClose={() => setAsked(undefined)}
          act={async () => {
            const query = { scope: asked.scope, ...(asked.key === null ? {} : { key: asked.key }) };
            await dataOf(api.DELETE("/v1/ops/switches", { params: { query } }));
            await refresh();
          }}
        >
          <p>{text.onHelp}</p>
        </Confirm>
      )}
    </Card>
  );
}

function nameOf(scope: Scope, key: string | null): string {
  return text.names[scope]?.(printable(key ?? "")) ?? scope;
}

function SwitchOff({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [scope, setScope] = useState<Scope>("model");
  const off = useMutation({
    mutationFn: (body: Schemas["NewSwitch"]) => dataOf(api.PUT("/v1/ops/switches", { body })),
    onSuccess: onDone,
  });

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (off.isPending) return;
    const form = new FormData(event.currentTarget);
    const key = String(form.get("key") ?? "").trim();
    off.mutate({ scope, key: key === "" ? null : key, reason: String(form.get("reason")).trim() });
  }

  return (
    <Dialog title={text.offTitle} onClose={onClose}>
      <form className={style.form} onSubmit={submit}>
        <p>{text.offHelp}</p>
        <Field label={text.scope}>
          {(control) => (
            <select {...control} value={scope} onChange={(event) => setScope(event.target.value as Scope)}>
              {SCOPES.map((each) => (
                <option key={each} value={each}>
                  {text.scopes[each]}
                </option>
              ))}
            </select>
          )}
        </Field>
        {scope !== "fleet" && (
          <Field label={text.keys[scope] ?? scope}>
            {(control) => (
              <input {...control} name="key" required maxLength={200} autoComplete="off" spellCheck={false} />
            )}
          </Field>
        )}
        <Field label={words.bulk.reason} hint={text.reasonHelp}>
          {(control) => <input {...control} name="reason" required maxLength={500} />}
        </Field>
        {off.isError && <Failure error={off.error} />}
        <div className={style.buttons}>
          <Button onClick={onClose}>{words.cancel}</Button>
          <Button type="submit" kind="danger" busy={off.isPending}>
            {text.switchOff}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
