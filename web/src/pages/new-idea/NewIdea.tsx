import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useCallback, useEffect, useRef, useState } from "react";
import { Link, useLocation, useSearch } from "wouter";
import { api, dataOf, idempotencyKey, Problem, type Schemas } from "../../api/client.ts";
import { keys, useMe } from "../../api/queries.ts";
import { Button, ButtonLink } from "../../parts/Button.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { paths } from "../../paths.ts";
import { newIdea as newIdeaWords } from "../../words/new-idea.ts";
import { ConflictDialog } from "./ConflictDialog.tsx";
import {
  buildMistakes,
  type Draft,
  emptyDraft,
  hasContent,
  ideaMistakes,
  type Mistakes,
  placeOf,
  STEPS,
  type StepName,
  withBrief,
} from "./draft.ts";
import { IdeaStep } from "./IdeaStep.tsx";
import { InterviewStep } from "./InterviewStep.tsx";
import style from "./NewIdea.module.css";
import { ReviewStep } from "./ReviewStep.tsx";
import { startBuild, storeProject, VersionConflict } from "./store.ts";
import { draftKey, useDraft } from "./useDraft.ts";
import { useKeyboardInset } from "./useKeyboardInset.ts";

const text = newIdeaWords;

/** A new idea, or with `projectId` the brief and interview of a project, in three steps. */
export default function NewIdea({ projectId }: { projectId?: string }) {
  usePageTitle(text.title);
  const me = useMe();
  const questions = useQuery({
    queryKey: ["interview-questions"],
    queryFn: () => dataOf(api.GET("/v1/interview-questions")),
    staleTime: Number.POSITIVE_INFINITY,
  });
  const project = useQuery({
    queryKey: keys.project(projectId ?? ""),
    queryFn: () => dataOf(api.GET("/v1/projects/{project_id}", { params: { path: { project_id: projectId ?? "" } } })),
    enabled: projectId !== undefined,
    // An edit begins with what is stored now.
    staleTime: 0,
    refetchOnWindowFocus: false,
  });
  const failed = [me, questions, ...(projectId === undefined ? [] : [project])].find(
    (each) => each.isError && each.data === undefined,
  );
  if (failed?.error) return <Failure page={text.title} error={failed.error} retry={() => void failed.refetch()} />;
  if (me.data === undefined || questions.data === undefined) return <Skeleton page={text.title} />;
  if (projectId !== undefined && (project.data === undefined || !project.isFetchedAfterMount))
    return <Skeleton page={text.title} />;
  return <Steps user={me.data.user} asked={questions.data.questions} project={project.data} />;
}

interface StepsProps {
  user: string;
  asked: Schemas["Question"][];
  project: Schemas["ProjectOut"] | undefined;
}

/** What went wrong: nothing is stored, or only the build was not started. */
interface Outcome {
  kind: "problem" | "not-built";
  error: Error;
}

function Steps({ user, asked, project }: StepsProps) {
  const me = useMe();
  const makeEmpty = useCallback(() => firstDraft(asked, project), [asked, project]);
  const kept = useDraft(draftKey(user, project?.id), makeEmpty);
  const { draft, current } = kept;
  const [location, navigate] = useLocation();
  const parameters = new URLSearchParams(useSearch());
  const client = useQueryClient();

  const step: StepName = STEPS.find((each) => each === parameters.get("step")) ?? "idea";
  const index =
    Math.min(Math.max(1, Math.trunc(Number(parameters.get("question")) || 1)), Math.max(1, draft.questions.length)) - 1;
  const addressOf = (to: StepName, question?: number) =>
    `${location}?step=${to}${question === undefined ? "" : `&question=${question + 1}`}`;

  const [mistakes, setMistakes] = useState<Mistakes>({});
  const [outcome, setOutcome] = useState<Outcome>();
  const [conflict, setConflict] = useState<VersionConflict & { andBuild?: boolean }>();
  const [isBusy, setBusy] = useState(false);
  const [asksToDiscard, setAsksToDiscard] = useState(false);
  const inFlight = useRef(false);
  const heading = useRef<HTMLHeadingElement>(null);
  const form = useRef<HTMLFormElement>(null);
  const [focusOn, setFocusOn] = useState<string>();
  useKeyboardInset();

  // A step that opens takes the focus at its heading, so that a screen reader and a keyboard begin there.
  const openStep = useRef(step);
  useEffect(() => {
    if (openStep.current === step) return;
    openStep.current = step;
    if (focusOn === undefined) heading.current?.focus();
    window.scrollTo({ top: 0 });
  }, [step, focusOn]);

  // The first mistake takes it, once its step is shown.
  useEffect(() => {
    if (focusOn === undefined) return;
    const input = [...(form.current?.querySelectorAll<HTMLElement>("[data-field]") ?? [])].find(
      (each) => each.dataset.field === focusOn,
    );
    input?.focus();
    setFocusOn(undefined);
  }, [focusOn]);

  const update: typeof kept.update = (change) => {
    kept.update((before) => {
      const after = typeof change === "function" ? change(before) : { ...before, ...change };
      const isSameBuild =
        before.goal === after.goal && before.policy === after.policy && before.nights === after.nights;
      return {
        ...after,
        ...(isSameBuild ? {} : { buildKey: idempotencyKey() }),
        ...(before.organisation === after.organisation ? {} : { projectKey: idempotencyKey() }),
      };
    });
    if (Object.keys(mistakes).length > 0) setMistakes({});
  };

  function showMistakes(found: Mistakes): boolean {
    setMistakes(found);
    const [first] = Object.keys(found);
    if (first === undefined) return false;
    const place = placeOfInput(first, current());
    if (place.step !== step || place.question !== undefined) navigate(addressOf(place.step, place.question));
    setFocusOn(first);
    return true;
  }

  function goNext() {
    setOutcome(undefined);
    if (step === "idea") {
      if (!showMistakes(ideaMistakes(current(), text.mistakes))) navigate(addressOf("interview", 0));
    } else if (step === "interview") {
      if (index + 1 < draft.questions.length) navigate(addressOf("interview", index + 1));
      else navigate(addressOf("review"));
    }
  }

  function goBack() {
    if (step === "interview") navigate(index > 0 ? addressOf("interview", index - 1) : addressOf("idea"));
    else if (step === "review") navigate(addressOf("interview", Math.max(0, draft.questions.length - 1)));
  }

  async function submit(andBuild: boolean) {
    if (inFlight.current) return;
    const found = {
      ...ideaMistakes(current(), text.mistakes),
      ...(andBuild && buildMistakes(current(), text.mistakes)),
    };
    if (showMistakes(found)) return;
    inFlight.current = true;
    setBusy(true);
    setOutcome(undefined);
    try {
      const stored = await storeProject(current());
      kept.update((before) => ({
        ...before,
        projectId: stored.projectId,
        briefVersion: stored.briefVersion,
        interviewVersion: stored.interviewVersion,
      }));
      void client.invalidateQueries({ queryKey: keys.projects() });
      if (!andBuild) {
        kept.discard();
        navigate(paths.project(stored.projectId));
        return;
      }
      try {
        const buildId = await startBuild(stored);
        void client.invalidateQueries({ queryKey: keys.builds() });
        void client.invalidateQueries({ queryKey: keys.account() });
        kept.discard();
        navigate(paths.build(buildId));
      } catch (error) {
        onProblem(error, "not-built");
      }
    } catch (error) {
      if (error instanceof VersionConflict) setConflict(Object.assign(error, { andBuild }));
      else onProblem(error, "problem");
    } finally {
      inFlight.current = false;
      setBusy(false);
    }
  }

  function onProblem(error: unknown, kind: "problem" | "not-built") {
    if (!(error instanceof Error)) throw error;
    if (error instanceof Problem && error.kind === "invalid-request" && error.errors.length > 0) {
      const found: Mistakes = {};
      for (const each of error.errors) {
        const { input } = placeOf(each.field, current());
        found[input] ??= each.message;
      }
      showMistakes(found);
      return;
    }
    setOutcome({ kind, error });
  }

  const role = me.data?.organisations?.find((each) => each.id === project?.organisation_id)?.role;
  const isViewer = project !== undefined && role === "viewer";
  const count = Object.keys(mistakes).length;
  const others = Object.entries(mistakes).filter(([name]) => !hasInput(name, draft));
  return (
    <form
      ref={form}
      className={style.page}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (step !== "review") goNext();
      }}
    >
      <div className={style.head}>
        <h1>{project === undefined ? text.title : text.editTitle(printable(project.name))}</h1>
        <Stepper step={step} addressOf={addressOf} />
        {hasContent(draft) && (
          <p className={style.kept}>
            {kept.isKept ? text.kept : text.notKept}
            <Button kind="quiet" small onClick={() => setAsksToDiscard(true)}>
              {text.discard}
            </Button>
          </p>
        )}
      </div>
      {isViewer && <Notice kind="info" title={text.review.viewer} />}
      {count > 0 && (
        <Notice kind="bad" title={text.mistakes.summary(count)} alert>
          {others.map(([name, message]) => (
            <p key={name}>
              {printable(name)}: {printable(message)}
            </p>
          ))}
        </Notice>
      )}
      <div className={style.card}>
        {step === "idea" && (
          <IdeaStep
            draft={draft}
            update={update}
            mistakes={mistakes}
            heading={heading}
            isEdit={project !== undefined}
          />
        )}
        {step === "interview" && (
          <InterviewStep
            draft={draft}
            update={update}
            mistakes={mistakes}
            heading={heading}
            index={index}
            show={(to) => navigate(addressOf("interview", to))}
            next={goNext}
          />
        )}
        {step === "review" && (
          <ReviewStep
            draft={draft}
            update={update}
            mistakes={mistakes}
            heading={heading}
            addressOf={addressOf}
            isEdit={project !== undefined}
          />
        )}
        {outcome !== undefined && (
          <NotDone outcome={outcome} projectId={draft.projectId} again={() => void submit(true)} />
        )}
      </div>
      <div className={style.actions}>
        {step !== "idea" && <Button onClick={goBack}>{text.back}</Button>}
        <span className={style.space} />
        {step === "interview" && (draft.answers[draft.questions[index]?.id ?? ""] ?? "").trim() === "" && (
          <Button kind="quiet" onClick={goNext}>
            {text.skip}
          </Button>
        )}
        {step !== "review" && (
          <Button kind="main" type="submit">
            {text.next}
          </Button>
        )}
        {step === "review" && !isViewer && (
          <>
            <Button busy={isBusy} onClick={() => void submit(false)}>
              {project === undefined ? text.review.createOnly : text.review.saveOnly}
            </Button>
            <Button kind="main" busy={isBusy} onClick={() => void submit(true)}>
              {project === undefined ? text.review.create : text.review.save}
            </Button>
          </>
        )}
      </div>
      {conflict !== undefined && draft.projectId !== null && (
        <ConflictDialog
          conflict={conflict}
          projectId={draft.projectId}
          close={() => setConflict(undefined)}
          keepMine={() => {
            kept.update(withVersion(conflict));
            setConflict(undefined);
            void submit(conflict.andBuild ?? false);
          }}
          takeTheirs={(theirs) => {
            kept.update((before) => withVersion(conflict)(theirs(before)));
            setConflict(undefined);
          }}
        />
      )}
      {asksToDiscard && (
        <Dialog
          title={text.discardTitle}
          onClose={() => setAsksToDiscard(false)}
          actions={
            <>
              <Button onClick={() => setAsksToDiscard(false)}>{text.keepDraft}</Button>
              <Button
                kind="danger"
                onClick={() => {
                  kept.discard();
                  setAsksToDiscard(false);
                  setOutcome(undefined);
                  setMistakes({});
                  navigate(project === undefined ? addressOf("idea") : paths.project(project.id));
                }}
              >
                {text.discard}
              </Button>
            </>
          }
        >
          <p>{text.discardText}</p>
        </Dialog>
      )}
    </form>
  );
}

function withVersion(conflict: VersionConflict): (draft: Draft) => Draft {
  const name = conflict.document === "brief" ? "briefVersion" : "interviewVersion";
  return (draft) => ({ ...draft, [name]: conflict.version });
}

/** The draft that an edit begins with, or that of a new idea. */
function firstDraft(asked: Schemas["Question"][], project: Schemas["ProjectOut"] | undefined): Draft {
  const questions = asked.map(({ id, text: question }) => ({ id, text: question }));
  if (project === undefined) return { ...emptyDraft(text.review.firstGoal, idempotencyKey), questions };
  const isBuilt = (project.last_build_version ?? 0) > 0;
  const empty = emptyDraft(isBuilt ? text.review.nextGoal : text.review.firstGoal, idempotencyKey);
  const draft = withBrief(empty, project.brief ?? { name: project.name });
  return {
    ...draft,
    questions: project.interview?.questions ?? questions,
    answers: project.interview?.answers ?? {},
    projectId: project.id,
    briefVersion: project.brief_version ?? 0,
    interviewVersion: project.interview_version ?? 0,
  };
}

/** The step, and the question, of an input by its name. */
function placeOfInput(input: string, draft: Draft): { step: StepName; question?: number } {
  if (input === "brief" || input.startsWith("brief.")) return { step: "idea" };
  if (input.startsWith("interview")) {
    const question = draft.questions.findIndex(({ id }) => input === `interview.answers.${id}`);
    return { step: "interview", question: Math.max(0, question) };
  }
  return { step: "review" };
}

/** Whether a mistake of this name is shown at an input; else the list above says it. */
function hasInput(input: string, draft: Draft): boolean {
  if (input.startsWith("interview.")) return draft.questions.some(({ id }) => input === `interview.answers.${id}`);
  return input.startsWith("brief") || ["interview", "goal", "max_nights", "organisation_id"].includes(input);
}

function Stepper({ step, addressOf }: { step: StepName; addressOf: (step: StepName) => string }) {
  return (
    <nav aria-label={text.stepsLabel}>
      <ol className={style.stepper}>
        {STEPS.map((each, index) => (
          <li key={each}>
            <Link to={addressOf(each)} aria-current={each === step ? "step" : undefined} className={style.step}>
              <span className={style.stepNumber} aria-hidden>
                {index + 1}
              </span>
              {text.steps[each]}
            </Link>
          </li>
        ))}
      </ol>
    </nav>
  );
}

interface NotDoneProps {
  outcome: Outcome;
  projectId: string | null;
  again: () => void;
}

/** Why it was not stored, or stored but not built, and what to do. */
function NotDone({ outcome, projectId, again }: NotDoneProps) {
  const { error, kind } = outcome;
  const slug = error instanceof Problem ? error.kind : "";
  const actions: ReactNode[] = [];
  if (slug === "open-build" && error instanceof Problem && typeof error.body.build_id === "string") {
    actions.push(
      <ButtonLink key="watch" to={paths.build(error.body.build_id)} kind="main">
        {text.problems.watch}
      </ButtonLink>,
    );
  }
  if (kind === "not-built" && projectId !== null) {
    actions.push(
      <ButtonLink key="open" to={paths.project(projectId)}>
        {text.problems.openProject}
      </ButtonLink>,
    );
  }
  if (kind === "not-built" && slug !== "open-build") {
    actions.push(
      <Button key="again" onClick={again}>
        {text.problems.again}
      </Button>,
    );
  }
  const saved =
    kind !== "not-built"
      ? undefined
      : slug === "autonomous-agent-off"
        ? text.problems.savedNotBuilt
        : slug === "open-build"
          ? undefined
          : text.problems.stored;
  return (
    <Notice
      kind={kind === "not-built" ? "warn" : "bad"}
      title={slug === "open-build" ? text.problems.openBuild : printable(error.message)}
      alert
    >
      {saved !== undefined && <p>{saved}</p>}
      {actions.length > 0 && <div className={style.row}>{actions}</div>}
    </Notice>
  );
}
