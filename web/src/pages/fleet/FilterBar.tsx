import { useEffect, useId, useRef, useState } from "react";
import type { Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { fleet as words } from "../../words/fleet.ts";
import style from "./Fleet.module.css";
import { type Filter, readFilter, showsTheSame, withList } from "./filter.ts";

/** A filter follows what is typed after this many milliseconds. */
const TYPED_MS = 300;

interface Props {
  filter: Filter;
  fleet: Schemas["FleetOut"] | undefined;
  onChange: (filter: Filter, replace?: boolean) => void;
}

/** What of the builds is shown. Each change is in the address at once. */
export function FilterBar({ filter, fleet, onChange }: Props) {
  const text = words.filter;
  // On a narrow screen the filter is folded until it is asked for.
  const [isOpen, setOpen] = useState(false);
  const plans = fleet?.spend_today.by_plan.map(({ key }) => key) ?? [];
  const models = fleet?.spend_today.by_model.map(({ key }) => key) ?? [];
  const versions = [...new Set(fleet?.builds.flatMap(({ version }) => version ?? []))];
  // One choice on the page for what are two lists in the API: people and services.
  const people = Object.entries(words.statuses.needs).map(([who, word]) => [`waiting_for ${who}`, word] as const);
  const services = Object.entries(words.dependency).map(
    ([what, word]) => [`dependency ${what}`, words.on(word)] as const,
  );
  const waitsFor = (["waiting_for", "dependency"] as const).flatMap((list) =>
    (filter.lists[list] ?? []).map((value) => `${list} ${value}`),
  );
  return (
    <div role="search" aria-label={text.title}>
      <div className={style.narrowOnly}>
        <Button aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
          {text.title}
        </Button>
      </div>
      <div className={`${style.filters} ${isOpen ? "" : style.folded}`}>
        <Choice
          label={text.shown}
          value={filter.shown}
          options={[
            ["open", text.shownOpen],
            ["ended", text.shownEnded],
            ["today", text.shownToday],
            ["all", text.shownAll],
          ]}
          onChange={(shown) => onChange({ ...filter, shown: shown as Filter["shown"] })}
        />
        <Choice
          label={text.status}
          value={joined(filter.lists.status)}
          options={[
            ["", text.any],
            ...Object.entries({ ...words.statuses.word, needs_input: words.statuses.needsInput }),
          ]}
          several={filter.lists.status}
          onChange={(status) => onChange(withList(filter, "status", status === "" ? [] : [status]))}
        />
        <Choice
          label={text.waitingFor}
          value={joined(waitsFor)}
          options={[["", text.any], ...people, ...services]}
          several={waitsFor}
          onChange={(value) => {
            const none = withList(withList(filter, "waiting_for", []), "dependency", []);
            const [list, chosen] = value.split(" ");
            onChange(chosen === undefined ? none : withList(none, list as "waiting_for" | "dependency", [chosen]));
          }}
        />
        <Typed
          label={text.user}
          values={filter.lists.user}
          onChange={(user) => onChange(withList(filter, "user", user), true)}
        />
        <Typed
          label={text.plan}
          values={filter.lists.plan}
          known={plans}
          onChange={(plan) => onChange(withList(filter, "plan", plan), true)}
        />
        <Typed
          label={text.model}
          values={filter.lists.model}
          known={models}
          onChange={(model) => onChange(withList(filter, "model", model), true)}
        />
        <Typed
          label={text.version}
          values={filter.lists.version}
          known={versions}
          onChange={(version) => onChange(withList(filter, "version", version), true)}
        />
        <Choice
          label={text.older}
          value={filter.olderThanSeconds === undefined ? "" : String(filter.olderThanSeconds)}
          options={[["", text.olderAny], ...Object.entries(text.olderThan)]}
          onChange={(seconds) =>
            onChange({ ...filter, olderThanSeconds: seconds === "" ? undefined : Number(seconds) })
          }
        />
        {!showsTheSame(filter, readFilter("")) && (
          <Button kind="quiet" onClick={() => onChange({ ...readFilter(""), sort: filter.sort })}>
            <Icon name="cross" /> {text.clear}
          </Button>
        )}
      </div>
    </div>
  );
}

/** The value that a choice shows: of several, all of them as one more option. */
function joined(values: readonly string[] | undefined): string {
  return (values ?? []).join(",");
}

interface ChoiceProps {
  label: string;
  value: string;
  options: (readonly [string, string])[];
  several?: readonly string[] | undefined;
  onChange: (value: string) => void;
}

function Choice({ label, value, options, several, onChange }: ChoiceProps) {
  const names = new Map(options);
  return (
    <label>
      {label}
      <select value={value} onChange={(event) => onChange(event.target.value)}>
        {!names.has(value) && (
          <option value={value}>{several?.map((each) => names.get(each) ?? each).join(", ") ?? value}</option>
        )}
        {options.map(([each, text]) => (
          <option key={each} value={each}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

interface TypedProps {
  label: string;
  values: readonly string[] | undefined;
  known?: readonly string[];
  onChange: (values: string[]) => void;
}

/** A text, or several separated by commas. */
function Typed({ label, values, known, onChange }: TypedProps) {
  const listId = useId();
  const given = (values ?? []).join(",");
  const [typed, setTyped] = useState(given);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => setTyped(given), [given]);
  useEffect(() => () => clearTimeout(timer.current), []);

  function type(text: string) {
    setTyped(text);
    clearTimeout(timer.current);
    timer.current = setTimeout(
      () => onChange(text.split(",").flatMap((value) => (value.trim() === "" ? [] : [value.trim()]))),
      TYPED_MS,
    );
  }

  return (
    <label>
      {label}
      <input
        type="search"
        value={typed}
        placeholder={words.filter.any}
        list={known === undefined ? undefined : listId}
        autoComplete="off"
        spellCheck={false}
        onChange={(event) => type(event.target.value)}
      />
      {known !== undefined && (
        <datalist id={listId}>
          {known.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      )}
    </label>
  );
}
