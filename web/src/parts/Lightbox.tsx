import { useEffect } from "react";
import { panels as panelsWords } from "../words/panels.ts";
import { Button } from "./Button.tsx";
import { Dialog } from "./Dialog.tsx";
import { Icon } from "./Icon.tsx";
import style from "./Lightbox.module.css";

export interface Picture {
  /** An address of the API. */
  src: string;
  alt: string;
  width?: number | null;
  height?: number | null;
}

interface Props {
  pictures: Picture[];
  /** The index of the picture that is shown. */
  at: number;
  onAt: (at: number) => void;
  onClose: () => void;
}

/** Pictures as large as the window, one at a time: ← and → go on, Escape closes. */
export function Lightbox({ pictures, at, onAt, onClose }: Props) {
  const w = panelsWords.screenshots;
  const picture = pictures[at];
  useEffect(() => {
    function move(event: KeyboardEvent) {
      const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
      if (by === 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const next = at + by;
      if (next >= 0 && next < pictures.length) onAt(next);
    }
    addEventListener("keydown", move);
    return () => removeEventListener("keydown", move);
  }, [at, pictures.length, onAt]);
  if (picture === undefined) return null;
  return (
    <Dialog title={picture.alt} onClose={onClose} wide>
      <div className={style.lightbox}>
        <img
          key={picture.src}
          className={style.picture}
          src={picture.src}
          alt={picture.alt}
          width={picture.width ?? undefined}
          height={picture.height ?? undefined}
        />
        <div className={style.bar}>
          <Button onClick={() => at > 0 && onAt(at - 1)} aria-disabled={at === 0} aria-label={w.previous}>
            <Icon name="arrowLeft" />
          </Button>
          <span role="status">{w.position(at + 1, pictures.length)}</span>
          <Button
            onClick={() => at < pictures.length - 1 && onAt(at + 1)}
            aria-disabled={at === pictures.length - 1}
            aria-label={w.next}
          >
            <Icon name="arrowRight" />
          </Button>
          <a href={picture.src} target="_blank" rel="noopener">
            {w.original}
          </a>
        </div>
      </div>
    </Dialog>
  );
}
