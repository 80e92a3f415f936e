import { useEffect, useRef, useState } from "react";
import { Button } from "../../parts/Button.tsx";
import { Field } from "../../parts/Field.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { printable } from "../../parts/printable.ts";
import { newIdea as newIdeaWords } from "../../words/new-idea.ts";
import { newQuestionId } from "./draft.ts";
import type { StepProps } from "./IdeaStep.tsx";
import style from "./NewIdea.module.css";

const text = newIdeaWords.interview;

interface Props extends StepProps {
  /** Which question, counted from 0. */
  index: number;
  show: (index: number) => void;
  /** What Ctrl and Enter do in the answer. */
  next: () => void;
}

/** The second step: one question at a time. */
export function InterviewStep({ draft, update, mistakes, heading, index, show, next }: Props) {
  const { questions } = draft;
  const question = questions[index];
  const answerRef = useRef<HTMLTextAreaElement>(null);
  const shown = useRef(question?.id);
  // The heading takes the focus when the step opens; from question to question, the answer does.
  useEffect(() => {
    if (shown.current !== undefined && shown.current !== question?.id) answerRef.current?.focus();
    shown.current = question?.id;
  }, [question?.id]);

  function remove(id: string) {
    update((before) => {
      const { [id]: _, ...answers } = before.answers;
      return { ...before, questions: before.questions.filter((each) => each.id !== id), answers };
    });
    show(Math.max(0, Math.min(index, questions.length - 2)));
  }

  return (
    <>
      <h2 ref={heading} tabIndex={-1}>
        {text.heading}
      </h2>
      <p className={style.quiet}>{text.help}</p>
      {mistakes.interview !== undefined && (
        <p data-field="interview" tabIndex={-1} className={style.tooLarge}>
          {printable(mistakes.interview)}
        </p>
      )}
      {question === undefined ? (
        <p>{text.none}</p>
      ) : (
        <section className={style.question}>
          <div className={style.progress}>
            <span>{text.progress(index + 1, questions.length)}</span>
            <span className={style.progressTrack} aria-hidden>
              <span style={{ inlineSize: `${((index + 1) / questions.length) * 100}%` }} />
            </span>
          </div>
          <Field
            label={<span className={style.questionText}>{printable(question.text)}</span>}
            hint={isOwn(question.id) ? text.ownMark : undefined}
            error={mistakes[`interview.answers.${question.id}`]}
          >
            {(control) => (
              <textarea
                {...control}
                key={question.id}
                ref={answerRef}
                rows={6}
                data-field={`interview.answers.${question.id}`}
                value={draft.answers[question.id] ?? ""}
                onKeyDown={(event) => {
                  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
                    event.preventDefault();
                    next();
                  }
                }}
                onChange={(event) => {
                  const value = event.target.value;
                  update((before) => ({ ...before, answers: { ...before.answers, [question.id]: value } }));
                }}
              />
            )}
          </Field>
          {isOwn(question.id) && (
            <Button kind="quiet" small onClick={() => remove(question.id)}>
              <Icon name="cross" /> {text.ownRemove}
            </Button>
          )}
        </section>
      )}
      <OwnQuestion
        add={(asked) => {
          update((before) => ({
            ...before,
            questions: [...before.questions, { id: newQuestionId(before.questions), text: asked }],
          }));
          show(questions.length);
        }}
      />
    </>
  );
}

function isOwn(id: string): boolean {
  return id.startsWith("own_");
}

function OwnQuestion({ add }: { add: (text: string) => void }) {
  const [asked, setAsked] = useState<string>();
  if (asked === undefined) {
    return (
      <div>
        <Button small kind="quiet" onClick={() => setAsked("")}>
          <Icon name="plus" /> {text.own}
        </Button>
      </div>
    );
  }
  const submit = () => {
    if (asked.trim() === "") return;
    add(asked.trim());
    setAsked(undefined);
  };
  return (
    <div className={style.own}>
      <Field label={text.ownLabel}>
        {(control) => (
          <input
            {...control}
            // biome-ignore lint/a11y/noAutofocus: it opens where the button was that opens it
            autoFocus
            value={asked}
            onChange={(event) => setAsked(event.target.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter") {
                event.preventDefault();
                submit();
              } else if (event.key === "Escape") setAsked(undefined);
            }}
          />
        )}
      </Field>
      <Button aria-disabled={asked.trim() === ""} onClick={submit}>
        {text.ownAdd}
      </Button>
    </div>
  );
}
