import { Field } from "../../parts/Field.tsx";
import { newIdea as newIdeaWords } from "../../words/new-idea.ts";
import type { Draft, Mistakes } from "./draft.ts";
import style from "./NewIdea.module.css";

const text = newIdeaWords.review;

/** What a founder chooses for a build. */
export type Options = Pick<Draft, "goal" | "policy" | "nights">;

interface Props {
  options: Options;
  update: (change: Partial<Options>) => void;
  mistakes: Mistakes;
}

/** The goal, and what happens when the day's allowance is used up. */
export function BuildOptions({ options, update, mistakes }: Props) {
  return (
    <>
      <Field label={text.goal} hint={text.goalHint} error={mistakes.goal}>
        {(control) => (
          <textarea
            {...control}
            rows={2}
            data-field="goal"
            value={options.goal}
            onChange={(event) => update({ goal: event.target.value })}
          />
        )}
      </Field>
      <fieldset className={style.choice}>
        <legend>{text.policy}</legend>
        {Object.entries(text.policies).map(([policy, label]) => (
          <label key={policy}>
            <input type="radio" name="policy" checked={options.policy === policy} onChange={() => update({ policy })} />
            {label}
          </label>
        ))}
      </fieldset>
      {options.policy !== "stop" && (
        <Field label={text.nights} error={mistakes.max_nights}>
          {(control) => (
            <input
              {...control}
              className={style.short}
              inputMode="numeric"
              data-field="max_nights"
              value={options.nights}
              onChange={(event) => update({ nights: event.target.value })}
            />
          )}
        </Field>
      )}
    </>
  );
}
