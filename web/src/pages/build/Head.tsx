import { type ReactNode, useId, useState } from "react";
import { Link } from "wouter";
import { Button, ButtonLink } from "../../parts/Button.tsx";
import { duration } from "../../parts/clock.ts";
import { Icon } from "../../parts/Icon.tsx";
import { MenuButton } from "../../parts/MenuButton.tsx";
import { Meter } from "../../parts/Meter.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { isEnded, Status } from "../../parts/Status.tsx";
import { useNow } from "../../parts/Time.tsx";
import { paths } from "../../paths.ts";
import { build as buildWords } from "../../words/build.ts";
import type { Build } from "./data.ts";
import style from "./Head.module.css";
import type { Action, Sentence } from "./sentence.ts";

export type Act = (action: Action) => void;

interface Props {
  build: Build;
  sentence: Sentence;
  counts: { calls: number; failed: number };
  mayChange: boolean | undefined;
  act: Act;
  /** What is under way, so that its button shows it. */
  busy: Action | undefined;
  onKeys: () => void;
  announce: (text: string) => void;
  isSaved: boolean;
  isPhone: boolean;
  /** How the feed is connected. */
  live: ReactNode;
  /** Buttons before the menu. */
  more: ReactNode;
}

/** Actions that change the build: not for those who may only look. */
const CHANGES: ReadonlySet<Action> = new Set(["answer", "say", "wake", "goOn", "finish", "stop", "again", "continue"]);
/** Actions that have a place of their own on the page, beside the menu's. */
const ELSEWHERE: ReadonlySet<Action> = new Set(["say", "stop", "continue"]);

/** What is built, how it is, and what can be done about it. */
export function Head({
  build,
  sentence,
  counts,
  mayChange,
  act,
  busy,
  onKeys,
  announce,
  isSaved,
  isPhone,
  live,
  more,
}: Props) {
  const shown = sentence.actions.filter(
    (action) => !ELSEWHERE.has(action) && (mayChange === true || !CHANGES.has(action)),
  );
  return (
    <header className={style.head}>
      <div className={style.top}>
        <div className={style.title}>
          <h1 className={style.name}>
            <Link to={paths.project(build.project_id)}>
              <bdi>{printable(build.project_name)}</bdi>
            </Link>
          </h1>
          <Status status={build.status} waitingFor={build.waiting_for} />
          {live}
        </div>
        <div className={style.tools}>
          <span className={style.meter}>
            <Meter budget={build.budget} compact />
          </span>
          {more}
          <MenuButton
            label={buildWords.menu}
            className={style.menu}
            load={() => import("./HeadMenu.tsx")}
            menu={{ build, mayChange: mayChange === true, act, onKeys, announce, isSaved }}
          >
            <Icon name="more" size={20} />
          </MenuButton>
        </div>
      </div>
      <Goal goal={build.goal} long={isPhone ? LONG_ON_PHONE : LONG} />
      <div className={style.state}>
        <p className={style.sentence} data-sentence>
          {printable(sentence.text)}
        </p>
        {shown.length > 0 && (
          <div className={style.actions} data-only-finish={shown.every((action) => action === "finish") || undefined}>
            {shown.map((action, index) =>
              action === "download" ? (
                <ButtonLink key={action} to={archive(build.id, "zip")} small outside>
                  {buildWords.actions.download}
                </ButtonLink>
              ) : (
                <Button
                  key={action}
                  kind={index === 0 && action !== "finish" ? "main" : "plain"}
                  small
                  busy={busy === action}
                  onClick={() => act(action)}
                >
                  {buildWords.actions[action]}
                </Button>
              ),
            )}
          </div>
        )}
      </div>
      <Counts build={build} counts={counts} />
      {mayChange === false && (
        <Notice kind="info">
          <p>{buildWords.viewer}</p>
        </Notice>
      )}
    </header>
  );
}

/** Where the current workspace is downloaded. */
export function archive(build: string, format: "tar.gz" | "zip"): string {
  return `/v1/builds/${encodeURIComponent(build)}/snapshots/current/archive?format=${format}`;
}

/** Characters of a goal that is cut until someone wants to read all of it. */
const LONG = 140;
const LONG_ON_PHONE = 48;

function Goal({ goal, long }: { goal: string; long: number }) {
  const [open, setOpen] = useState(false);
  const id = useId();
  const isLong = goal.length > long || goal.includes("\n");
  return (
    <div className={style.goal}>
      <p id={id} className={isLong && !open ? style.clamped : style.whole}>
        <span className="visually-hidden">{buildWords.goal}: </span>
        {printable(goal)}
      </p>
      {isLong && (
        <Button kind="quiet" small aria-expanded={open} aria-controls={id} onClick={() => setOpen(!open)}>
          {open ? buildWords.less : buildWords.more}
        </Button>
      )}
    </div>
  );
}

function Counts({ build, counts }: { build: Build; counts: { calls: number; failed: number } }) {
  const now = useNow(10);
  const ended = isEnded(build.status);
  const from = Date.parse(build.started_at ?? build.created_at);
  const to = build.closed_at === null ? now : Date.parse(build.closed_at);
  const seconds = Math.max(0, to - from) / 1000;
  const time = duration(ended ? seconds : Math.floor(seconds / 10) * 10);
  return (
    <p className={style.counts}>
      <span>{buildWords.facts(build.turn)}</span>
      <span>{buildWords.calls(counts.calls, counts.failed)}</span>
      <span>{ended ? buildWords.took(time) : buildWords.elapsed(time)}</span>
    </p>
  );
}
