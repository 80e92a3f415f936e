import { type KeyboardEvent, type PointerEvent, useRef } from "react";
import { layout as text } from "../../words/build.ts";
import style from "./Build.module.css";

export const LEAST = 25;
export const MOST = 65;
const STEP = 2;

const within = (percent: number) => Math.round(Math.min(MOST, Math.max(LEAST, percent)) * 10) / 10;

interface Props {
  /** The width of the part on the right, in percent of the page. */
  percent: number;
  onChange: (percent: number) => void;
}

/** The line between the feed and the part on the right, which the pointer and the arrow keys move. */
export function Handle({ percent, onChange }: Props) {
  const ref = useRef<HTMLDivElement>(null);

  function move(event: PointerEvent) {
    const page = ref.current?.parentElement?.getBoundingClientRect();
    if (page !== undefined) onChange(within(((page.right - event.clientX) / page.width) * 100));
  }

  function onKey(event: KeyboardEvent) {
    const steps: Record<string, number> = { ArrowLeft: STEP, ArrowRight: -STEP, Home: MOST, End: -MOST };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    onChange(within(percent + step));
  }

  return (
    <div
      ref={ref}
      role="separator"
      aria-orientation="vertical"
      aria-label={text.resize}
      aria-valuemin={LEAST}
      aria-valuemax={MOST}
      aria-valuenow={percent}
      tabIndex={0}
      className={style.handle}
      onKeyDown={onKey}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        event.preventDefault();
      }}
      onPointerMove={(event) => event.currentTarget.hasPointerCapture(event.pointerId) && move(event)}
    />
  );
}
