import { Link } from "wouter";
import type { Schemas } from "../../api/client.ts";
import { ButtonLink } from "../../parts/Button.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { Meter } from "../../parts/Meter.tsx";
import { printable } from "../../parts/printable.ts";
import { Status } from "../../parts/Status.tsx";
import { duration, useNow } from "../../parts/Time.tsx";
import { paths } from "../../paths.ts";
import { projects as projectsWords } from "../../words/projects.ts";
import { sentence } from "../build/sentence.ts";
import style from "./Projects.module.css";

const text = projectsWords;

interface Props {
  builds: Schemas["BuildOut"][];
}

/** Builds that wait for their founder, with their question in a line. */
export function NeedsYou({ builds }: Props) {
  return (
    <section aria-labelledby="needs-you">
      <h2 id="needs-you">{text.needsYou}</h2>
      <ul className={style.rows}>
        {builds.map((build) => (
          <li key={build.id} className={`${style.row} ${style.asks}`}>
            <Icon name="question" size={20} />
            <div className={style.about}>
              <Link to={paths.build(build.id)} className={style.name}>
                <bdi>{printable(build.project_name)}</bdi>
              </Link>
              <Line>{printable(build.question?.problem ?? sayOf(build, Date.now()))}</Line>
            </div>
            <ButtonLink to={paths.build(build.id)} kind="main">
              {build.question === null ? text.look : text.answer}
            </ButtonLink>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** The other open builds: how each is, and how far. */
export function Running({ builds }: Props) {
  const now = useNow(10);
  return (
    <section aria-labelledby="running">
      <h2 id="running">{text.running}</h2>
      <ul className={style.rows}>
        {builds.map((build) => (
          <li key={build.id} className={style.row}>
            <div className={style.about}>
              <div className={style.top}>
                <Link to={paths.build(build.id)} className={style.name}>
                  <bdi>{printable(build.project_name)}</bdi>
                </Link>
                <Status status={build.status} waitingFor={build.waiting_for} />
              </div>
              <Line>{printable(sayOf(build, now))}</Line>
              {build.agent_questions?.[0] !== undefined && (
                <p className={style.line} title={printable(`${text.asksNow} ${build.agent_questions[0].problem}`)}>
                  {text.asksNow} <Link to={paths.build(build.id)}>{printable(build.agent_questions[0].problem)}</Link>
                </p>
              )}
            </div>
            <div className={style.facts}>
              <span>{text.phase(build.phases_completed, build.turn)}</span>
              <span>{text.elapsed(duration((now - Date.parse(build.created_at)) / 1000))}</span>
              {build.budget && <Meter budget={build.budget} compact />}
            </div>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Text of which two lines are shown; all of it is in its title, and on the build's page. */
function Line({ children }: { children: string }) {
  return (
    <p className={style.line} title={children}>
      {children}
    </p>
  );
}

function sayOf(build: Schemas["BuildOut"], now: number): string {
  return sentence(build, { progress: undefined, snapshot: undefined, said: build.narration ?? null, now }).text;
}
