import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useId, useRef, useState } from "react";
import { api, Problem, type Schemas } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";
import { Button } from "../../parts/Button.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { printable } from "../../parts/printable.ts";
import { isEnded } from "../../parts/Status.tsx";
import { tabStorage } from "../../parts/storage.ts";
import { question as text } from "../../words/build.ts";
import { OwnAnswers } from "./answers.ts";
import type { Build, BuildFeed } from "./data.ts";
import style from "./Question.module.css";

type Question = Schemas["QuestionOut"];

export const QUESTION_ID = "question";

interface Props {
  build: Build;
  feed: BuildFeed;
  mayChange: boolean;
  announce: (text: string) => void;
  /** Show a turn in the feed. */
  onTurn: (turn: number) => void;
}

/** The questions that wait for an answer: the one that the build waits for, and those with which the agent goes on. */
export function Questions({ build, feed, ...rest }: Props) {
  const gone = useGone(build, feed);
  return (
    <>
      {build.question !== null && (
        <QuestionCard key={build.question.id} build={build} asked={build.question} {...rest} />
      )}
      {build.question === null && gone.text !== null && (
        <p className={style.gone} role="status">
          <Icon name="info" /> <span>{printable(gone.text)}</span>
          <Button kind="quiet" small onClick={gone.forget}>
            {text.later}
          </Button>
        </p>
      )}
      {build.agent_questions.length > 0 && <AgentQuestions build={build} {...rest} />}
    </>
  );
}

/** What has become of a question that was shown here and that someone else has answered, or nobody. */
function useGone(build: Build, feed: BuildFeed) {
  const shown = useRef<string | null>(null);
  const [said, setSaid] = useState<string | null>(null);
  const id = build.question?.id ?? null;
  useEffect(() => {
    const before = shown.current;
    shown.current = id;
    if (id !== null) setSaid(null);
    if (before === null || before === id) return;
    const entry = feed.state.entries.findLast(
      ({ event }) => event.type === "answer" && event.data.question_id === before,
    );
    const answer = entry?.event.type === "answer" ? entry.event.data.text : null;
    if (answers.isOwn(before, answer)) return;
    // Of a build that has ended, the page says why.
    if (answer !== null) setSaid(text.elsewhere(answer));
    else if (!isEnded(build.status)) setSaid(text.gone);
  }, [id, build.status, feed.state.entries]);
  return { text: said, forget: () => setSaid(null) };
}

const answers = new OwnAnswers();

function AgentQuestions({ build, ...rest }: Omit<Props, "feed">) {
  const [open, setOpen] = useState(false);
  const id = useId();
  const count = build.agent_questions.length;
  return (
    <div className={style.soft}>
      <Button kind="quiet" small aria-expanded={open} aria-controls={id} onClick={() => setOpen(!open)}>
        <Icon name="question" /> {text.count(count)}
        <span className={style.hint}>{open ? text.later : text.show}</span>
      </Button>
      <div id={id} hidden={!open} className={style.list}>
        {build.agent_questions.map((asked) => (
          <QuestionCard key={asked.id} build={build} asked={asked} {...rest} />
        ))}
      </div>
    </div>
  );
}

const OWN = "own";
const draftName = (question: string) => `cofounder-answer-${question}`;

function QuestionCard({ build, asked, mayChange, announce, onTurn }: { asked: Question } & Omit<Props, "feed">) {
  const isSoft = asked.default !== null;
  const id = useId();
  const [own, setOwn] = useState(() => tabStorage.getItem(draftName(asked.id)) ?? "");
  const [choice, setChoice] = useState<string>(own === "" ? "" : OWN);
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState("");
  const client = useQueryClient();
  const field = useRef<HTMLTextAreaElement>(null);

  function write(value: string) {
    setOwn(value);
    setChoice(OWN);
    if (value === "") tabStorage.removeItem(draftName(asked.id));
    else tabStorage.setItem(draftName(asked.id), value);
  }

  async function answer() {
    if (busy) return;
    const words = own.trim();
    if (choice === "" || (choice === OWN && words === "")) {
      setTrouble(text.choose);
      return;
    }
    setBusy(true);
    setTrouble("");
    answers.send(asked.id, choice === OWN ? words : (asked.options[Number(choice) - 1] ?? ""));
    try {
      await api.POST("/v1/builds/{build_id}/answer", {
        params: { path: { build_id: build.id } },
        body:
          choice === OWN ? { question_id: asked.id, text: words } : { question_id: asked.id, option: Number(choice) },
      });
      answers.store(asked.id);
      tabStorage.removeItem(draftName(asked.id));
      announce(text.answered);
      await client.invalidateQueries({ queryKey: keys.build(build.id), exact: true });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      const theirs = error.kind === "already-answered" ? error.body.answer : undefined;
      setTrouble(typeof theirs === "string" ? text.elsewhere(theirs) : error.message);
      if (error.status === 409) await client.invalidateQueries({ queryKey: keys.build(build.id), exact: true });
    } finally {
      setBusy(false);
    }
  }

  return (
    <section
      id={isSoft ? undefined : QUESTION_ID}
      className={`${style.card} ${isSoft ? style.quiet : ""}`}
      aria-labelledby={`${id}-title`}
      tabIndex={-1}
    >
      <h2 id={`${id}-title`} className={style.title}>
        <Icon name="question" /> {isSoft ? text.titleSoft : text.title}
      </h2>
      {!isSoft && (
        <span className="visually-hidden" role="alert">
          {text.alert(printable(asked.problem))}
        </span>
      )}
      <p className={style.problem}>{printable(asked.problem)}</p>
      {asked.tried.length > 0 && (
        <details className={style.tried}>
          <summary>
            {text.tried} ({asked.tried.length})
          </summary>
          <ul>
            {asked.tried.map((each, index) => (
              <li key={index}>
                <Attempt said={each} onTurn={onTurn} />
              </li>
            ))}
          </ul>
        </details>
      )}
      {asked.default !== null && <p className={style.goesOn}>{text.goesOn(printable(asked.default))}</p>}
      {mayChange && (
        <form
          onSubmit={(event: FormEvent) => {
            event.preventDefault();
            void answer();
          }}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
              event.preventDefault();
              void answer();
            }
          }}
        >
          <fieldset className={style.options}>
            <legend className="visually-hidden">{text.options}</legend>
            {asked.options.map((option, index) => (
              <label key={`${index} ${option}`} className={style.option}>
                <input
                  type="radio"
                  name={id}
                  value={index + 1}
                  checked={choice === String(index + 1)}
                  onChange={() => setChoice(String(index + 1))}
                />
                <span>{printable(option)}</span>
              </label>
            ))}
            <label className={style.option}>
              <input
                type="radio"
                name={id}
                value={OWN}
                checked={choice === OWN}
                onChange={() => setChoice(OWN)}
                onClick={(event) => {
                  // By pointer only: the arrow keys choose, too, and must not leave the choices.
                  if (event.detail > 0) requestAnimationFrame(() => field.current?.focus());
                }}
              />
              <span>{text.own}</span>
            </label>
            <textarea
              ref={field}
              rows={2}
              value={own}
              aria-label={text.ownLabel}
              hidden={choice !== OWN}
              onChange={(event) => write(event.target.value)}
            />
          </fieldset>
          <div className={style.end}>
            {trouble !== "" && (
              <p className={style.trouble} role="alert">
                {printable(trouble)}
              </p>
            )}
            <Button type="submit" kind="main" busy={busy}>
              {text.answer}
            </Button>
          </div>
        </form>
      )}
    </section>
  );
}

/** What the agent tried: "Turn 7: …", with the turn as a button that shows it. */
function Attempt({ said, onTurn }: { said: string; onTurn: (turn: number) => void }) {
  const turn = /^Turn (\d{1,6})(?=:)/.exec(said);
  if (turn === null) return printable(said);
  return (
    <>
      <button type="button" className={style.turn} onClick={() => onTurn(Number(turn[1]))}>
        {turn[0]}
      </button>
      {printable(said.slice(turn[0].length))}
    </>
  );
}
