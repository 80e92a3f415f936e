import { useState } from "react";
import { useLocation } from "wouter";
import { idempotencyKey } from "../../api/client.ts";
import { useMe } from "../../api/queries.ts";
import { Button } from "../../parts/Button.tsx";
import { Field } from "../../parts/Field.tsx";
import { paths } from "../../paths.ts";
import { newIdea as newIdeaWords } from "../../words/new-idea.ts";
import { projects as projectsWords } from "../../words/projects.ts";
import { emptyDraft } from "../new-idea/draft.ts";
import { keepSentence } from "../new-idea/useDraft.ts";
import style from "./Projects.module.css";

const text = projectsWords;

/** For someone who has no project yet: the sentence with which one begins. */
export function FirstIdea() {
  const [sentence, setSentence] = useState("");
  const [, navigate] = useLocation();
  const me = useMe();

  function begin() {
    if (sentence.trim() === "" || me.data === undefined) return;
    keepSentence(me.data.user, sentence, emptyDraft(newIdeaWords.review.firstGoal, idempotencyKey));
    navigate(paths.newIdea());
  }

  return (
    <form
      className={style.first}
      onSubmit={(event) => {
        event.preventDefault();
        begin();
      }}
    >
      <h2>{text.emptyTitle}</h2>
      <p>{text.emptyText}</p>
      <Field label={<span className="visually-hidden">{text.sentence}</span>}>
        {(control) => (
          <textarea
            {...control}
            rows={2}
            value={sentence}
            onChange={(event) => setSentence(event.target.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
                event.preventDefault();
                begin();
              }
            }}
          />
        )}
      </Field>
      <Button kind="main" type="submit" aria-disabled={sentence.trim() === ""}>
        {text.goOn}
      </Button>
      <p className={style.quiet}>{text.examples}</p>
      <ul className={style.ideas}>
        {text.ideas.map((idea) => (
          <li key={idea}>
            <button type="button" className={style.idea} onClick={() => setSentence(idea)}>
              {idea}
            </button>
          </li>
        ))}
      </ul>
    </form>
  );
}
