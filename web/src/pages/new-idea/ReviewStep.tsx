import type { ReactNode } from "react";
import { useAccount, useMe } from "../../api/queries.ts";
import { ButtonLink } from "../../parts/Button.tsx";
import { Field } from "../../parts/Field.tsx";
import { Meter } from "../../parts/Meter.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { newIdea as newIdeaWords } from "../../words/new-idea.ts";
import { BuildOptions } from "./BuildOptions.tsx";
import { briefOf, type Draft, interviewOf, type StepName } from "./draft.ts";
import { asText, type StepProps } from "./IdeaStep.tsx";
import style from "./NewIdea.module.css";

const text = newIdeaWords.review;

interface Props extends StepProps {
  addressOf: (step: StepName) => string;
  isEdit: boolean;
}

/** The last step: what the agent will read, and what the build is to do. */
export function ReviewStep({ draft, update, mistakes, heading, addressOf, isEdit }: Props) {
  return (
    <>
      <h2 ref={heading} tabIndex={-1}>
        {text.heading}
      </h2>
      <p className={style.quiet}>{text.help}</p>
      <BriefView draft={draft} edit={<EditLink to={addressOf("idea")} part={newIdeaWords.steps.idea} />} />
      <InterviewView
        draft={draft}
        edit={<EditLink to={addressOf("interview")} part={newIdeaWords.steps.interview} />}
      />
      <section className={style.group}>
        <h3>{text.build}</h3>
        <BuildOptions options={draft} update={update} mistakes={mistakes} />
        {!isEdit && draft.projectId === null && <Organisation draft={draft} update={update} mistakes={mistakes} />}
        <Budget />
      </section>
    </>
  );
}

function EditLink({ to, part }: { to: string; part: string }) {
  return (
    <ButtonLink to={to} small kind="quiet">
      {text.editOf(part.toLowerCase())}
    </ButtonLink>
  );
}

/** A brief as the agent reads it. */
export function BriefView({ draft, edit }: { draft: Draft; edit?: ReactNode }) {
  const brief = briefOf(draft);
  return (
    <section className={style.sheet}>
      <div className={style.sheetHead}>
        <h3>
          <bdi>{printable(draft.name.trim()) || newIdeaWords.idea.name}</bdi>
        </h3>
        {edit}
      </div>
      <dl>
        <dt>{text.problem}</dt>
        <dd className={style.prose}>{printable(brief.problem)}</dd>
        <dt>{text.features}</dt>
        <dd>
          <ol>
            {brief.features.map((feature, index) => (
              <li key={index}>{printable(feature)}</li>
            ))}
          </ol>
        </dd>
        {Object.entries(brief)
          .filter(([name]) => !["name", "problem", "features"].includes(name))
          .map(([name, value]) => (
            <div key={name}>
              <dt>{name === "audience" ? text.audience : name === "notes" ? text.notes : printable(name)}</dt>
              <dd className={style.prose}>{printable(asText(value))}</dd>
            </div>
          ))}
      </dl>
    </section>
  );
}

/** The answers of an interview as the agent reads them. */
export function InterviewView({ draft, edit }: { draft: Draft; edit?: ReactNode }) {
  const { questions, answers } = interviewOf(draft);
  const answered = questions.filter(({ id }) => answers[id] !== undefined);
  const open = questions.length - answered.length;
  return (
    <section className={style.sheet}>
      <div className={style.sheetHead}>
        <h3>{text.interview}</h3>
        {edit}
      </div>
      {answered.length === 0 ? (
        <p className={style.quiet}>{text.noAnswers}</p>
      ) : (
        <>
          <dl>
            {answered.map(({ id, text: asked }) => (
              <div key={id}>
                <dt>{printable(asked)}</dt>
                <dd className={style.prose}>{printable(answers[id] ?? "")}</dd>
              </div>
            ))}
          </dl>
          {open > 0 && <p className={style.quiet}>{text.unanswered(open)}</p>}
        </>
      )}
    </section>
  );
}

function Organisation({ draft, update, mistakes }: Pick<StepProps, "draft" | "update" | "mistakes">) {
  const me = useMe();
  const own = (me.data?.organisations ?? []).filter((each) => each.role !== "viewer");
  if (own.length < 2) return null;
  return (
    <Field label={text.organisation} hint={text.organisationHint} error={mistakes.organisation_id}>
      {(control) => (
        <select
          {...control}
          data-field="organisation_id"
          value={draft.organisation || own.find((each) => each.is_personal)?.id}
          onChange={(event) => update({ organisation: event.target.value })}
        >
          {own.map((each) => (
            <option key={each.id} value={each.id}>
              {each.is_personal ? text.personal : printable(each.name)}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

function Budget() {
  const account = useAccount();
  const me = useMe();
  const budget = account.data?.budget;
  return (
    <>
      {budget !== undefined && (
        <div className={style.budget}>
          <span>{text.budget}</span>
          <Meter budget={budget} />
        </div>
      )}
      {budget !== undefined && (budget.percent ?? 0) >= 100 && <p className={style.quiet}>{text.budgetUsedUp}</p>}
      {account.data?.suspended === true && <Notice kind="warn" title={newIdeaWords.problems.suspended} />}
      {me.data?.server?.builds_on === false && (
        <Notice kind="warn" title={printable(me.data.server.builds_off_reason ?? "")} />
      )}
    </>
  );
}
