import { useMemo, useState } from "react";
import type { Schemas } from "../../../api/client.ts";
import { Button } from "../../../parts/Button.tsx";
import { Dialog } from "../../../parts/Dialog.tsx";
import { Failure } from "../../../parts/Failure.tsx";
import { Lightbox, type Picture } from "../../../parts/Lightbox.tsx";
import { Skeleton } from "../../../parts/Skeleton.tsx";
import { clock, Time } from "../../../parts/Time.tsx";
import { panels as panelsWords } from "../../../words/panels.ts";
import { Empty } from "./Empty.tsx";
import type { PanelProps } from "./Panels.tsx";
import { useScreenshots } from "./queries.ts";
import style from "./Screenshots.module.css";

type Screenshot = Schemas["ScreenshotOut"];

/** Screenshots that were taken together. */
interface Group {
  key: string;
  title: string;
  takenAt: string;
  gate: number | null;
  screenshots: Screenshot[];
}

/** The screenshots by what has taken them, the newest first. */
export function groupsOf(screenshots: readonly Screenshot[]): Group[] {
  const w = panelsWords.screenshots;
  const groups = new Map<string, Group>();
  for (const each of screenshots) {
    const key = each.kind === "gate" ? `gate ${each.gate}` : `look ${each.tool_use_id ?? each.id}`;
    const group = groups.get(key);
    if (group !== undefined) {
      group.screenshots.push(each);
      continue;
    }
    const gate = each.kind === "gate" ? each.gate : null;
    const title = gate !== null ? w.gate(gate) : each.turn === null ? w.look : w.turn(each.turn);
    groups.set(key, { key, title, takenAt: each.taken_at, gate, screenshots: [each] });
  }
  for (const group of groups.values()) group.screenshots.sort((a, b) => a.viewport.localeCompare(b.viewport));
  return [...groups.values()];
}

function viewport(name: string): string {
  return panelsWords.screenshots.viewport[name] ?? name;
}

function altOf(group: Group, screenshot: Screenshot): string {
  const time = clock(new Date(screenshot.taken_at));
  return panelsWords.screenshots.alt(viewport(screenshot.viewport), group.title, time);
}

/** What browsers have seen of the product: in the checks, and when the agent looked. */
export default function Screenshots({ build }: PanelProps) {
  const query = useScreenshots(build.id);
  const [at, setAt] = useState<number>();
  const [isComparing, setComparing] = useState(false);
  const groups = useMemo(() => groupsOf(query.data?.pages.flatMap((page) => page.screenshots) ?? []), [query.data]);
  const pictures = groups.flatMap((group) =>
    group.screenshots
      .filter(({ kept }) => kept !== false)
      .map((each) => ({
        id: each.id,
        src: each.path,
        alt: altOf(group, each),
        width: each.width,
        height: each.height,
      })),
  );
  const gates = groups.filter(
    ({ gate, screenshots }) => gate !== null && screenshots.some(({ kept }) => kept !== false),
  );
  const w = panelsWords.screenshots;
  if (query.isPending) return <Skeleton lines={6} />;
  if (query.isError && query.data === undefined) {
    return (
      <div className={style.panel}>
        <Failure error={query.error} retry={() => query.refetch()} />
      </div>
    );
  }
  if (groups.length === 0) return <Empty title={w.empty}>{w.emptyHelp}</Empty>;
  return (
    <div className={style.panel}>
      {gates.length > 1 && (
        <p>
          <Button onClick={() => setComparing(true)}>{w.compare}</Button>
        </p>
      )}
      {groups.map((group) => (
        <section key={group.key} className={style.group} aria-label={group.title}>
          <h3 className={style.title}>
            {group.title}
            <span className={style.time}>
              <Time at={group.takenAt} />
            </span>
          </h3>
          <div className={style.row}>
            {group.screenshots.map((each) => (
              <figure key={each.id} className={`${style.figure} ${each.viewport === "mobile" ? style.phone : ""}`}>
                {each.kept === false ? (
                  <div className={style.gone}>
                    <p>{w.gone}</p>
                    {each.kind === "agent" && <p className={style.help}>{w.goneHelp}</p>}
                  </div>
                ) : (
                  <Thumbnail
                    picture={{ src: each.path, alt: altOf(group, each), width: each.width, height: each.height }}
                    onOpen={() => setAt(pictures.findIndex(({ id }) => id === each.id))}
                  />
                )}
                <figcaption className={style.caption}>{viewport(each.viewport)}</figcaption>
              </figure>
            ))}
          </div>
        </section>
      ))}
      {query.hasNextPage && (
        <p>
          <Button busy={query.isFetchingNextPage} onClick={() => query.fetchNextPage()}>
            {w.older}
          </Button>
        </p>
      )}
      {at !== undefined && <Lightbox pictures={pictures} at={at} onAt={setAt} onClose={() => setAt(undefined)} />}
      {isComparing && <Compare gates={gates} onClose={() => setComparing(false)} />}
    </div>
  );
}

/** A picture that opens in full. One that does not come is said to be gone. */
function Thumbnail({ picture, onOpen }: { picture: Picture; onOpen: () => void }) {
  const [isGone, setGone] = useState(false);
  const w = panelsWords.screenshots;
  if (isGone) {
    return (
      <div className={style.gone}>
        <p>{w.notThere}</p>
      </div>
    );
  }
  return (
    <button type="button" className={style.open} aria-label={w.enlarge(picture.alt)} onClick={onOpen}>
      <img
        src={picture.src}
        alt=""
        width={picture.width ?? undefined}
        height={picture.height ?? undefined}
        loading="lazy"
        onError={() => setGone(true)}
      />
    </button>
  );
}

/** The pictures of two evidence gates over each other, with a slider between them. */
function Compare({ gates, onClose }: { gates: Group[]; onClose: () => void }) {
  const [before, setBefore] = useState(gates[1]?.key);
  const [after, setAfter] = useState(gates[0]?.key);
  const [size, setSize] = useState<"desktop" | "mobile">("desktop");
  const [share, setShare] = useState(50);
  const w = panelsWords.screenshots;
  const find = (key: string | undefined) => {
    const group = gates.find((each) => each.key === key);
    const screenshot = group?.screenshots.find(({ viewport: name, kept }) => name === size && kept !== false);
    return group === undefined || screenshot === undefined ? undefined : { group, screenshot };
  };
  const left = find(before);
  const right = find(after);
  const choice = (label: string, value: string | undefined, choose: (key: string) => void) => (
    <label className={style.choice}>
      <span>{label}</span>
      <select value={value} onChange={(event) => choose(event.target.value)}>
        {gates.map((gate) => (
          <option key={gate.key} value={gate.key}>
            {gate.title}, {clock(new Date(gate.takenAt))}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <Dialog title={w.compare} onClose={onClose} wide>
      <div className={style.choices}>
        {choice(w.before, before, setBefore)}
        {choice(w.after, after, setAfter)}
        <label className={style.choice}>
          <span>{panelsWords.preview.width}</span>
          <select value={size} onChange={(event) => setSize(event.target.value as "desktop" | "mobile")}>
            <option value="desktop">{viewport("desktop")}</option>
            <option value="mobile">{viewport("mobile")}</option>
          </select>
        </label>
      </div>
      {left === undefined || right === undefined ? (
        <p>{w.gone}</p>
      ) : (
        <>
          <label className={style.slider}>
            <span className="visually-hidden">{w.share}</span>
            <input
              type="range"
              min={0}
              max={100}
              value={share}
              aria-valuetext={`${share} %`}
              onChange={(event) => setShare(Number(event.target.value))}
            />
          </label>
          <div className={style.compare}>
            <img src={left.screenshot.path} alt={`${w.before}: ${altOf(left.group, left.screenshot)}`} />
            <img
              src={right.screenshot.path}
              alt={`${w.after}: ${altOf(right.group, right.screenshot)}`}
              style={{ clipPath: `inset(0 0 0 ${100 - share}%)` }}
            />
            <span className={style.edge} style={{ insetInlineStart: `${100 - share}%` }} aria-hidden />
          </div>
        </>
      )}
    </Dialog>
  );
}
