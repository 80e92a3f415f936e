import { lazy, Suspense, useCallback, useMemo, useRef, useState } from "react";
import { api, Problem } from "../../api/client.ts";
import { keys, queryClient, useMe } from "../../api/queries.ts";
import { catchingUp } from "../../feed/catchingUp.ts";
import { Feed, LiveState, showEvent, useBuildFeed } from "../../feed/index.ts";
import { Boundary } from "../../parts/Boundary.tsx";
import { Button, ButtonLink } from "../../parts/Button.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { isEnded } from "../../parts/Status.tsx";
import { useSingleKeyActions } from "../../parts/shortcuts.ts";
import { useNow } from "../../parts/Time.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { paths } from "../../paths.ts";
import { build as buildWords, layout, timeline as timelineWords } from "../../words/build.ts";
import { words } from "../../words/index.ts";
import style from "./Build.module.css";
import { ChipsRow } from "./ChipsRow.tsx";
import { Confirm } from "./Confirm.tsx";
import {
  type BuildFeed,
  type Build as BuildRow,
  useBuildRow,
  useCurrent,
  useFollow,
  useMarks,
  useMayChange,
  usePhases,
  useProgress,
  useSnapshots,
} from "./data.ts";
import { Handle } from "./Handle.tsx";
import { Head } from "./Head.tsx";
import { titleOf, useNotices, useNotifying } from "./notify.ts";
import { isInPhoneBar, PhoneBar } from "./PhoneBar.tsx";
import { Panels } from "./panels/Panels.tsx";
import { PANEL_TABS } from "./panels/tabs.ts";
import { QUESTION_ID, Questions } from "./Question.tsx";
import { Restored } from "./Restored.tsx";
import type { Sent, Target } from "./restore.ts";
import { Steer } from "./Steer.tsx";
import { type Action, sentence } from "./sentence.ts";
import { Timeline, type TimelineProps } from "./Timeline.tsx";
import type { TimelinePoint } from "./timeline.ts";
import { useAnnouncer, useStatusAnnouncements } from "./useAnnouncer.ts";
import { usePanels } from "./usePanels.ts";
import { useWidth } from "./useWidth.ts";

const KeyHelp = lazy(() => import("./KeyHelp.tsx"));
const RestoreDialog = lazy(() => import("./RestoreDialog.tsx"));

/** A build: what its agent says and does, how far it is, and what it makes. */
export default function Build({ id }: { id: string }) {
  const feed = useBuildFeed(id);
  const row = useBuildRow(id);
  useFollow(id, feed, row.data?.last_event_id);
  const build = useCurrent(row.data, feed);
  usePageTitle(build === undefined ? buildWords.title : titleOf(build));
  useNotices(build);

  if (build !== undefined) return <Page build={build} feed={feed} />;
  if (row.error instanceof Problem && (row.error.status === 404 || row.error.status === 422)) {
    return (
      <Notice kind="info" isPage title={buildWords.notThere}>
        <p>{buildWords.notThereHelp}</p>
        <ButtonLink to={paths.projects()}>{words.shared.toProjects}</ButtonLink>
      </Notice>
    );
  }
  if (row.error !== null) return <Failure page={buildWords.title} error={row.error} retry={() => void row.refetch()} />;
  return <Skeleton page={buildWords.title} lines={6} />;
}

type Asking =
  | { kind: "stop" }
  | { kind: "finish" }
  | { kind: "restore"; target: Target | undefined }
  | { kind: "keys" };

function Page({ build, feed }: { build: BuildRow; feed: BuildFeed }) {
  const me = useMe();
  const progress = useProgress(build.id);
  const phases = usePhases(build.id);
  const snapshots = useSnapshots(build.id);
  const marks = useMarks(build.id);
  const mayChange = useMayChange(build);
  const width = useWidth();
  const now = useNow(15);
  const [asking, setAsking] = useState<Asking | undefined>(undefined);
  const [busy, setBusy] = useState<Action | undefined>(undefined);
  const [trouble, setTrouble] = useState("");
  const { text: announced, announce } = useAnnouncer();
  const notifying = useNotifying();
  const steer = useRef<HTMLTextAreaElement>(null);
  const { tab, setTab, panels, setPanels, percent, setPercent } = usePanels(width);

  const stored = snapshots.data?.snapshots ?? [];
  const said = sentence(build, {
    progress: progress.data,
    snapshot: stored[0]?.number,
    said: feed.state.sentence,
    now,
  });
  const ended = isEnded(build.status);
  useStatusAnnouncements(build, said.text, announce);

  const change = useCallback(
    async (action: "wake" | "finish" | "cancel", done: string) => {
      await api.POST(`/v1/builds/{build_id}/${action}`, { params: { path: { build_id: build.id } } });
      announce(done);
      await queryClient.invalidateQueries({ queryKey: keys.build(build.id), exact: true });
    },
    [build.id, announce],
  );

  async function wake(action: Action) {
    setBusy(action);
    setTrouble("");
    try {
      await change("wake", buildWords.done.woken);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setTrouble(error.message);
    } finally {
      setBusy(undefined);
    }
  }

  function act(action: Action) {
    switch (action) {
      case "wake":
      case "goOn":
        void wake(action);
        return;
      case "stop":
      case "finish":
        setAsking({ kind: action });
        return;
      case "answer":
        document.getElementById(QUESTION_ID)?.focus();
        return;
      case "say":
        steer.current?.focus();
        return;
      case "product":
        setTab("preview");
        return;
      case "again":
      case "continue":
        setAsking({ kind: "restore", target: undefined });
        return;
      case "download":
        return;
    }
  }

  const phaseEvents = useMemo(
    () =>
      (marks.data?.events ?? [])
        .filter((event) => event.type === "phase_completed")
        .map((event) => event.id)
        .reverse(),
    [marks.data],
  );
  const atPhase = useRef<number | undefined>(undefined);
  function phase(step: 1 | -1) {
    if (phaseEvents.length === 0) return false;
    const here = atPhase.current ?? phaseEvents.length;
    atPhase.current = Math.min(phaseEvents.length - 1, Math.max(0, here + step));
    show(phaseEvents[atPhase.current] ?? 0);
    return true;
  }

  function show(event: number) {
    if (width === "phone") setTab(undefined);
    showEvent(event);
  }

  const tabKeys = Object.fromEntries(PANEL_TABS.map((name, index) => [String(index + 1), () => setTab(name)]));
  useSingleKeyActions({
    ...tabKeys,
    "?": () => setAsking({ kind: "keys" }),
    s: () => {
      if (steer.current === null) return false;
      if (width === "phone") setTab(undefined);
      steer.current.focus();
      return true;
    },
    "[": () => phase(-1),
    "]": () => phase(1),
    Escape: () => {
      if (width !== "tablet" || !panels) return false;
      setPanels(false);
      return true;
    },
  });

  const onBack = mayChange === true ? (target: Target) => setAsking({ kind: "restore", target }) : undefined;
  const line: TimelineProps = {
    build,
    progress: progress.data,
    snapshots: stored,
    changed: phases.data?.phases ?? [],
    eventOf: (point) => eventOf(point, marks.data?.events ?? []),
    onShow: show,
    onChanges: () => setTab("changes"),
    onBack,
  };
  const isPhone = width === "phone";
  // A phone has no room for both, and the question's card takes the founder's own words.
  const isAsked = isPhone && build.question !== null;
  const showsFeed = !isPhone || tab === undefined;
  const showsPanels = isPhone ? tab !== undefined : panels;

  return (
    <div
      className={style.page}
      data-whole-window
      data-width={width}
      data-panels={showsPanels || undefined}
      style={{ "--panels": `${percent}%` } as React.CSSProperties}
    >
      <p role="status" className="visually-hidden" data-announcement>
        {announced}
      </p>
      {width === "desktop" && (
        <aside className={style.left} aria-label={timelineWords.title}>
          <h2 className={style.leftTitle}>{timelineWords.title}</h2>
          <Boundary>
            <Timeline {...line} />
          </Boundary>
        </aside>
      )}
      <div className={style.middle}>
        <Head
          build={build}
          sentence={said}
          counts={{
            calls: Math.max(progress.data?.calls ?? 0, feed.state.callsDone),
            failed: Math.max(progress.data?.failed_calls ?? 0, feed.state.callsFailed),
          }}
          mayChange={mayChange}
          act={act}
          busy={busy}
          onKeys={() => setAsking({ kind: "keys" })}
          announce={announce}
          isSaved={stored.length > 0}
          isPhone={isPhone}
          live={
            <LiveState
              live={feed.live}
              asOf={feed.asOf}
              behind={catchingUp(feed.live, feed.lastId, build.last_event_id)}
              retryNow={feed.retryNow}
            />
          }
          more={
            !isPhone && (
              <Button
                kind="quiet"
                small
                aria-expanded={panels}
                aria-label={panels ? layout.hidePanels : layout.showPanels}
                title={panels ? layout.hidePanels : layout.showPanels}
                onClick={() => setPanels(!panels)}
              >
                <Icon name="panel" />
              </Button>
            )
          }
        />
        {width !== "desktop" && showsFeed && !isAsked && <ChipsRow {...line} />}
        {trouble !== "" && (
          <div className={style.notices}>
            <Notice kind="bad" title={printable(trouble)} alert>
              <Button small onClick={() => setTrouble("")}>
                {buildWords.hide}
              </Button>
            </Notice>
          </div>
        )}
        {notifying.said !== null && (
          <div className={style.notices}>
            <Notice kind="info" title={notifying.said} alert>
              <Button small onClick={notifying.forget}>
                {buildWords.hide}
              </Button>
            </Notice>
          </div>
        )}
        <div className={style.conversation} hidden={!showsFeed}>
          {!ended && (
            <div className={style.notices}>
              <Restored
                build={build}
                events={marks.data?.events ?? []}
                phases={progress.data?.phases ?? []}
                snapshots={stored}
                onBack={onBack}
              />
            </div>
          )}
          <div className={style.questions}>
            <Boundary>
              <Questions
                build={build}
                feed={feed}
                mayChange={mayChange === true}
                announce={announce}
                onTurn={(turn) => {
                  const entry = feed.state.entries.find(({ event }) => event.turn === turn);
                  if (entry !== undefined) show(entry.event.id);
                }}
              />
            </Boundary>
          </div>
          <div className={style.feed}>
            <Boundary>
              <Feed
                build={build.id}
                startsWith={me.data?.is_operator ? "everything" : "story"}
                onFile={(path) => setTab("files", path)}
              />
            </Boundary>
          </div>
          {mayChange === true && !ended && !isAsked && (
            <Boundary>
              <Steer build={build} isLive={feed.live.kind === "live"} field={steer} announce={announce} />
            </Boundary>
          )}
          {mayChange === true && ended && (
            <div className={style.ended}>
              <p>{build.status === "ready" ? buildWords.readyBox : buildWords.endedBox}</p>
              {build.status === "ready" && (
                <Button onClick={() => act("continue")}>{buildWords.actions.continue}</Button>
              )}
            </div>
          )}
        </div>
        {isPhone && tab !== undefined && (
          <div className={style.right}>
            <Boundary>
              <Panels build={build} tab={tab} onTab={setTab} bar={!isInPhoneBar(tab)} mayChange={mayChange === true} />
            </Boundary>
          </div>
        )}
      </div>
      {width === "desktop" && panels && <Handle percent={percent} onChange={setPercent} />}
      {!isPhone && panels && (
        <aside
          className={style.right}
          aria-label={layout.panels}
          onKeyDown={(event) => {
            if (width === "tablet" && event.key === "Escape" && !event.defaultPrevented) setPanels(false);
          }}
        >
          {width === "tablet" && (
            <div className={style.drawerHead}>
              <Button kind="quiet" small onClick={() => setPanels(false)}>
                <Icon name="cross" /> {words.shared.close}
              </Button>
            </div>
          )}
          <Boundary>
            <Panels build={build} tab={tab ?? "preview"} onTab={setTab} mayChange={mayChange === true} />
          </Boundary>
        </aside>
      )}
      {isPhone && <PhoneBar tab={tab} setTab={setTab} needsAnswer={build.question !== null} />}
      <Suspense>
        {asking?.kind === "keys" && <KeyHelp onClose={() => setAsking(undefined)} />}
        {asking?.kind === "restore" && (
          <RestoreDialog build={build} target={asking.target} onClose={() => setAsking(undefined)} />
        )}
      </Suspense>
      {asking?.kind === "stop" && (
        <Confirm
          title={buildWords.stop.title}
          yes={buildWords.stop.stop}
          no={buildWords.stop.keep}
          kind="danger"
          onYes={() => change("cancel", buildWords.done.stopping)}
          onClose={() => setAsking(undefined)}
        >
          <p>{buildWords.stop.what}</p>
          <p>{buildWords.stop.last}</p>
        </Confirm>
      )}
      {asking?.kind === "finish" && (
        <Confirm
          title={buildWords.finish.title}
          yes={buildWords.finish.finish}
          no={buildWords.finish.keep}
          onYes={() => change("finish", buildWords.done.finishing)}
          onClose={() => setAsking(undefined)}
        >
          <p>{buildWords.finish.what}</p>
        </Confirm>
      )}
    </div>
  );
}

/** The event that stands for a point of the timeline, if the feed has one. `events`: newest first. */
function eventOf(point: TimelinePoint, events: readonly Sent[]) {
  if (point.kind === "phase") {
    return events.find((each) => each.type === "phase_completed" && each.data.phase === point.phase.number)?.id;
  }
  if (point.kind === "gate") {
    return events.find((each) => each.type === "gate_started" && each.data.number === point.gate.number)?.id;
  }
  return undefined;
}
