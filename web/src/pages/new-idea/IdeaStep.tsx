import { type RefObject, useId, useRef, useState } from "react";
import { Button } from "../../parts/Button.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Field, Mistake } from "../../parts/Field.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { printable } from "../../parts/printable.ts";
import { newIdea as newIdeaWords } from "../../words/new-idea.ts";
import { BRIEF_MAX_BYTES, briefFromIdea, type Json, jsonBytes } from "./brief.ts";
import { briefOf, type Draft, featuresOf, hasContent, type Mistakes, withBrief } from "./draft.ts";
import { FeatureList } from "./FeatureList.tsx";
import style from "./NewIdea.module.css";

const text = newIdeaWords.idea;
/** From this share of the largest brief on, its size is shown. */
const SIZE_SHOWN_FROM = BRIEF_MAX_BYTES / 2;

export interface StepProps {
  draft: Draft;
  update: (change: Partial<Draft> | ((draft: Draft) => Draft)) => void;
  mistakes: Mistakes;
  heading: RefObject<HTMLHeadingElement | null>;
}

/** The first step: the brief, from a sentence, by hand, or from a file. */
export function IdeaStep({ draft, update, mistakes, heading, isEdit }: StepProps & { isEdit: boolean }) {
  const [message, setMessage] = useState("");
  const [asksToReplace, setAsksToReplace] = useState(false);
  const nameRef = useRef<HTMLInputElement>(null);
  const bytes = jsonBytes(briefOf(draft));

  function fill() {
    const { name, problem, features } = briefFromIdea(draft.sentence);
    update({ name, problem, features: featuresOf(features) });
    setAsksToReplace(false);
    setMessage(text.filled);
    nameRef.current?.focus();
  }

  function useBrief(brief: Json) {
    update((before) => withBrief(before, brief));
    setMessage(text.pasted);
    nameRef.current?.focus();
  }

  const fields = { name: draft.name, problem: draft.problem, features: draft.features };
  const isFilled = hasContent({ ...draft, ...fields, sentence: "", answers: {} });
  return (
    <>
      <h2 ref={heading} tabIndex={-1}>
        {isEdit ? text.editHeading : text.heading}
      </h2>
      {!isEdit && (
        <div className={style.sentence}>
          <Field label={text.sentence} hint={text.sentenceHint}>
            {(control) => (
              <textarea
                {...control}
                rows={2}
                value={draft.sentence}
                onChange={(event) => update({ sentence: event.target.value })}
              />
            )}
          </Field>
          <Button
            kind={isFilled ? "plain" : "main"}
            aria-disabled={draft.sentence.trim() === ""}
            onClick={() => {
              if (draft.sentence.trim() === "") return;
              if (isFilled) setAsksToReplace(true);
              else fill();
            }}
          >
            {text.fill}
          </Button>
        </div>
      )}
      <p role="status" className={message === "" ? "visually-hidden" : style.said}>
        {message}
      </p>
      {mistakes.brief !== undefined && (
        <div data-field="brief" tabIndex={-1}>
          <Mistake>{mistakes.brief}</Mistake>
        </div>
      )}
      <Field label={text.name} error={mistakes["brief.name"]}>
        {(control) => (
          <input
            {...control}
            ref={nameRef}
            data-field="brief.name"
            autoComplete="off"
            value={draft.name}
            onChange={(event) => update({ name: event.target.value })}
          />
        )}
      </Field>
      <Field label={text.problem} hint={text.problemHint} error={mistakes["brief.problem"]}>
        {(control) => (
          <textarea
            {...control}
            rows={4}
            data-field="brief.problem"
            value={draft.problem}
            onChange={(event) => update({ problem: event.target.value })}
          />
        )}
      </Field>
      <FeatureList features={draft.features} update={update} mistakes={mistakes} />
      <Field label={text.audience} error={mistakes["brief.audience"]}>
        {(control) => (
          <input
            {...control}
            data-field="brief.audience"
            autoComplete="off"
            value={draft.audience}
            onChange={(event) => update({ audience: event.target.value })}
          />
        )}
      </Field>
      <Field label={text.notes} hint={text.notesHint} error={mistakes["brief.notes"]}>
        {(control) => (
          <textarea
            {...control}
            rows={3}
            data-field="brief.notes"
            value={draft.notes}
            onChange={(event) => update({ notes: event.target.value })}
          />
        )}
      </Field>
      <FurtherFields draft={draft} update={update} />
      {bytes >= SIZE_SHOWN_FROM && (
        <p className={bytes > BRIEF_MAX_BYTES ? style.tooLarge : style.quiet} role="status">
          {bytes > BRIEF_MAX_BYTES
            ? newIdeaWords.mistakes.tooLarge(bytes, BRIEF_MAX_BYTES)
            : text.size(bytes, BRIEF_MAX_BYTES)}
        </p>
      )}
      <PasteBrief use={useBrief} />
      {asksToReplace && (
        <Dialog
          title={text.fillTitle}
          onClose={() => setAsksToReplace(false)}
          actions={
            <>
              <Button onClick={() => setAsksToReplace(false)}>{newIdeaWords.keepDraft}</Button>
              <Button kind="main" onClick={fill}>
                {text.replace}
              </Button>
            </>
          }
        >
          <p>{text.fillText}</p>
        </Dialog>
      )}
    </>
  );
}

function FurtherFields({ draft, update }: Pick<StepProps, "draft" | "update">) {
  const names = Object.keys(draft.more);
  if (names.length === 0) return null;
  return (
    <section className={style.group}>
      <h3>{text.more}</h3>
      <p className={style.quiet}>{text.moreHint}</p>
      <dl className={style.further}>
        {names.map((name) => (
          <div key={name}>
            <dt>{printable(name)}</dt>
            <dd>
              <pre>{printable(asText(draft.more[name]))}</pre>
              <Button
                kind="quiet"
                small
                aria-label={text.remove(printable(name))}
                onClick={() =>
                  update((before) => {
                    const { [name]: _, ...more } = before.more;
                    return { ...before, more };
                  })
                }
              >
                <Icon name="cross" />
              </Button>
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

/** A JSON value as a person reads it. */
export function asText(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function PasteBrief({ use }: { use: (brief: Json) => void }) {
  const [json, setJson] = useState("");
  const [isWrong, setWrong] = useState(false);
  const [isOver, setOver] = useState(false);
  const fileRef = useRef<HTMLInputElement>(null);
  const detailsRef = useRef<HTMLDetailsElement>(null);
  const fileId = useId();

  function take(content: string) {
    const brief = parseBrief(content);
    setWrong(brief === undefined);
    if (brief === undefined) return setJson(content);
    setJson("");
    if (detailsRef.current !== null) detailsRef.current.open = false;
    use(brief);
  }

  return (
    <details
      ref={detailsRef}
      className={`${style.paste} ${isOver ? style.over : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        const [file] = event.dataTransfer.files;
        if (file !== undefined) void file.text().then(take);
        else take(event.dataTransfer.getData("text"));
      }}
    >
      <summary>{isOver ? text.drop : text.paste}</summary>
      <div className={style.pasteBody}>
        <Field label={text.pasteLabel} error={isWrong ? text.pasteBad : undefined}>
          {(control) => (
            <textarea
              {...control}
              rows={6}
              spellCheck={false}
              className={style.code}
              value={json}
              onChange={(event) => {
                setJson(event.target.value);
                setWrong(false);
              }}
            />
          )}
        </Field>
        <div className={style.row}>
          <Button onClick={() => take(json)}>{text.pasteUse}</Button>
          <Button kind="quiet" onClick={() => fileRef.current?.click()} aria-controls={fileId}>
            {text.pasteFile}
          </Button>
          <input
            ref={fileRef}
            id={fileId}
            type="file"
            accept=".json,application/json"
            hidden
            onChange={(event) => {
              const [file] = event.target.files ?? [];
              event.target.value = "";
              if (file !== undefined) void file.text().then(take);
            }}
          />
        </div>
      </div>
    </details>
  );
}

function parseBrief(content: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(content);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  } catch {
    // Said below its input.
  }
  return undefined;
}
