import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type CSSProperties, type ReactNode, useEffect, useId, useRef, useState } from "react";
import { api, dataOf, type Schemas } from "../../../api/client.ts";
import { keys, useMe } from "../../../api/queries.ts";
import { Button } from "../../../parts/Button.tsx";
import { Failure } from "../../../parts/Failure.tsx";
import { Icon } from "../../../parts/Icon.tsx";
import { Notice } from "../../../parts/Notice.tsx";
import { printable } from "../../../parts/printable.ts";
import { Scroll } from "../../../parts/Scroll.tsx";
import { Skeleton } from "../../../parts/Skeleton.tsx";
import { isEnded } from "../../../parts/Status.tsx";
import { browserStorage } from "../../../parts/storage.ts";
import { Time, useNow } from "../../../parts/Time.tsx";
import { panels as panelsWords } from "../../../words/panels.ts";
import type { PanelProps } from "./Panels.tsx";
import style from "./Preview.module.css";
import { PreviewLinks } from "./PreviewLinks.tsx";
import { inProduct, previewAddress } from "./preview-address.ts";
import { usePreview, useScreenshots } from "./queries.ts";

/** What a product in the frame may do: all that it needs on its own origin, but not lead the console elsewhere. */
const SANDBOX =
  "allow-scripts allow-forms allow-same-origin allow-popups allow-popups-to-escape-sandbox allow-downloads allow-modals";

const HOUR = 3600;

/** Widths in CSS pixels; `fit` is that of the panel. */
const WIDTHS = { fit: undefined, desktop: 1280, tablet: 820, phone: 390 } as const;

type Width = keyof typeof WIDTHS;

/** Under this key the browser keeps that its user knows that some products can't be shown in a frame. */
const KNOWN = "cofounder-frame-known";

/** Milliseconds after a build has become ready in which its preview opens by itself. */
const EXPECTED = 120_000;

/** Milliseconds after which people are told that some products can't be shown in a frame. */
const NOTHING_AFTER = 10_000;

type Wish = Schemas["PreviewWish"];

/** The running product in a frame, with its address, its widths, and how long it runs. */
export default function Preview({ build, mayChange }: PanelProps) {
  const isReady = build.status === "ready";
  const now = useNow(10);
  const isExpected = build.closed_at == null || now - new Date(build.closed_at).getTime() < EXPECTED;
  const preview = usePreview(build.id, isReady, isExpected);
  const client = useQueryClient();
  const open = useMutation({
    mutationFn: (wish: Wish) =>
      dataOf(api.POST("/v1/builds/{build_id}/preview", { params: { path: { build_id: build.id } }, body: wish })),
    onSettled: () => client.invalidateQueries({ queryKey: keys.ofBuild(build.id, "preview") }),
  });
  const w = panelsWords.preview;
  if (!isReady) {
    return (
      <Poster build={build.id}>
        <p>{isEnded(build.status) ? w.ended : w.noneTitle}</p>
      </Poster>
    );
  }
  if (preview.isPending) return <Skeleton />;
  if (preview.isError && preview.data === undefined) {
    return (
      <div className={style.text}>
        <Failure error={preview.error} retry={() => preview.refetch()} />
      </div>
    );
  }
  const found = preview.data;
  const start = (text: string, wish: Wish = { restart: false }) =>
    mayChange && (
      <Button kind="main" busy={open.isPending} onClick={() => open.mutate(wish)}>
        <Icon name="play" /> {text}
      </Button>
    );
  const failure = open.isError && <Failure error={open.error} />;
  if (found === undefined || (found === null && isExpected) || found?.state === "opening") {
    return (
      <Poster build={build.id}>
        <p role="status">{w.opening}</p>
        {found?.reason && <p>{printable(found.reason)}</p>}
      </Poster>
    );
  }
  if (found?.state === "open" && found.url !== null && found.url !== undefined) {
    return (
      <Open
        key={found.url}
        build={build}
        preview={found}
        mayChange={mayChange}
        busy={open.isPending}
        onWish={open.mutate}
      >
        {failure}
      </Open>
    );
  }
  return (
    <>
      <Poster build={build.id}>
        {found?.state === "failed" ? (
          <>
            <p className={style.posterTitle}>{w.failed}</p>
            {found.reason && <p>{printable(found.reason)}</p>}
            {start(w.again)}
          </>
        ) : (
          <>
            <p className={style.posterTitle}>{w.closed}</p>
            <p>{found?.reason ? printable(found.reason) : w.closedHelp}</p>
            {start(w.start)}
          </>
        )}
        {failure}
      </Poster>
      <div className={style.text}>
        <Log text={found?.log} />
        <PreviewLinks build={build.id} mayChange={mayChange} />
      </div>
    </>
  );
}

/** The last screenshot, greyed, under words. */
function Poster({ build, children }: { build: string; children: ReactNode }) {
  const screenshots = useScreenshots(build);
  const all = screenshots.data?.pages.flatMap((page) => page.screenshots) ?? [];
  const picture = all.find(({ viewport, kept }) => viewport === "desktop" && kept !== false);
  return (
    <div className={style.poster}>
      {picture !== undefined && (
        <img
          className={style.posterPicture}
          src={picture.path}
          alt={panelsWords.preview.poster}
          width={picture.width ?? 1280}
          height={picture.height ?? 800}
        />
      )}
      <div className={style.posterWords}>{children}</div>
    </div>
  );
}

function Log({ text }: { text: string | null | undefined }) {
  if (!text) return null;
  return (
    <details>
      <summary>{panelsWords.preview.log}</summary>
      <Scroll label={panelsWords.preview.log} className={style.log}>
        <pre>{printable(text)}</pre>
      </Scroll>
    </details>
  );
}

interface OpenProps {
  build: Schemas["BuildOut"];
  preview: Schemas["PreviewOut"];
  mayChange: boolean;
  busy: boolean;
  onWish: (wish: Wish) => void;
  children: ReactNode;
}

/** An open preview. */
function Open({ build, preview, mayChange, busy, onWish, children }: OpenProps) {
  const me = useMe();
  const [path, setPath] = useState("/");
  const [typed, setTyped] = useState("/");
  const [loads, setLoads] = useState(0);
  const [width, setWidth] = useState<Width>("fit");
  const pathId = useId();
  const w = panelsWords.preview;
  if (me.data === undefined) return <Skeleton />;
  const address = previewAddress(preview.url ?? "", me.data.server.preview_origins);
  if (address === undefined) {
    return (
      <div className={style.text}>
        <Notice kind="bad" title={w.foreign} />
      </div>
    );
  }
  const src = inProduct(address.origin, path);
  return (
    <div className={style.open}>
      <div className={style.toolbar}>
        <form
          className={style.address}
          onSubmit={(event) => {
            event.preventDefault();
            const at = new URL(inProduct(address.origin, typed));
            const clean = at.pathname + at.search + at.hash;
            setPath(clean);
            setTyped(clean);
            setLoads(loads + 1);
          }}
        >
          <Button kind="quiet" aria-label={w.reload} title={w.reload} onClick={() => setLoads(loads + 1)}>
            <Icon name="refresh" />
          </Button>
          <label className={style.host} htmlFor={pathId}>
            <span className="visually-hidden">{w.address}</span>
            <span aria-hidden title={address.host}>
              {address.host}
            </span>
          </label>
          <input
            id={pathId}
            className={style.path}
            value={typed}
            spellCheck={false}
            autoComplete="off"
            autoCapitalize="off"
            onChange={(event) => setTyped(event.target.value)}
          />
          <Button type="submit">{w.go}</Button>
          <a className={style.external} href={src} target="_blank" rel="noopener noreferrer" title={w.newTab}>
            <Icon name="external" />
            <span className={style.externalText}>{w.newTab}</span>
          </a>
        </form>
        <div className={style.row}>
          <fieldset className={style.widths}>
            <legend className="visually-hidden">{w.width}</legend>
            {(Object.keys(WIDTHS) as Width[]).map((name) => (
              <label key={name} className={style.width}>
                <input
                  type="radio"
                  className="visually-hidden"
                  name={`${pathId}-width`}
                  checked={width === name}
                  onChange={() => setWidth(name)}
                />
                <span>{w.widths[name]}</span>
              </label>
            ))}
          </fieldset>
          <span className={style.until}>
            {preview.expires_at && (
              <span>
                {w.openUntil} <Time at={preview.expires_at} />
              </span>
            )}
            {mayChange && (
              <Button small busy={busy} onClick={() => onWish({ seconds: HOUR, restart: false })}>
                {w.keepOpen}
              </Button>
            )}
          </span>
        </div>
      </div>
      {children}
      <Frame key={loads} src={src} width={WIDTHS[width]} />
      <details className={style.more}>
        <summary>{w.more}</summary>
        <div className={style.moreBody}>
          {mayChange && (
            <p className={style.row}>
              <Button small busy={busy} onClick={() => onWish({ restart: true })}>
                {w.restart}
              </Button>
              <span>{w.restartHelp}</span>
            </p>
          )}
          <Log text={preview.log} />
          <PreviewLinks build={build.id} mayChange={mayChange} />
        </div>
      </details>
    </div>
  );
}

/** The product in a frame, scaled if it is given a width. */
function Frame({ src, width }: { src: string; width: number | undefined }) {
  const box = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [hint, setHint] = useState<"wait" | "shown" | "known">(() =>
    browserStorage.getItem(KNOWN) === null ? "wait" : "known",
  );
  const w = panelsWords.preview;
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const observer = new ResizeObserver(([entry]) => {
      if (entry) setSize({ width: entry.contentRect.width, height: entry.contentRect.height });
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const timer = setTimeout(() => setHint((now) => (now === "wait" ? "shown" : now)), NOTHING_AFTER);
    return () => clearTimeout(timer);
  }, []);
  const scale = width === undefined || size.width === 0 ? 1 : Math.min(1, size.width / width);
  const look: CSSProperties =
    width === undefined
      ? { inlineSize: "100%", blockSize: "100%" }
      : {
          inlineSize: width,
          blockSize: size.height / scale,
          transform: `scale(${scale})`,
          marginInlineStart: Math.max(0, (size.width - width * scale) / 2),
        };
  return (
    <>
      <div className={style.frameBox} ref={box}>
        <iframe
          className={style.frame}
          style={look}
          src={src}
          title={w.frame}
          sandbox={SANDBOX}
          allow=""
          referrerPolicy="no-referrer"
          loading="lazy"
        />
      </div>
      {hint === "shown" && (
        <p className={style.hint}>
          <span>
            <strong>{w.nothing}</strong> {w.nothingHelp}
          </span>
          <a href={src} target="_blank" rel="noopener noreferrer">
            {w.newTab}
          </a>
          <Button
            kind="quiet"
            small
            aria-label={w.dismiss}
            title={w.dismiss}
            onClick={() => {
              browserStorage.setItem(KNOWN, "yes");
              setHint("known");
            }}
          >
            <Icon name="cross" />
          </Button>
        </p>
      )}
    </>
  );
}
