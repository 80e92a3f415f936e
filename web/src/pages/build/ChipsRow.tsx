import { useState } from "react";
import { Button } from "../../parts/Button.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { timeline as text } from "../../words/build.ts";
import style from "./Build.module.css";
import { Timeline, TimelineChips, type TimelineProps } from "./Timeline.tsx";

/** The phases as chips, and a button for the whole line with its actions. */
export function ChipsRow(line: TimelineProps) {
  const [open, setOpen] = useState(false);
  return (
    <div className={style.chipsRow}>
      <Button kind="quiet" small aria-label={text.whole} title={text.whole} onClick={() => setOpen(true)}>
        <Icon name="queue" />
      </Button>
      <TimelineChips {...line} />
      {open && (
        <Dialog title={text.title} onClose={() => setOpen(false)}>
          <Timeline
            {...line}
            onShow={(event) => {
              setOpen(false);
              line.onShow(event);
            }}
            onChanges={() => {
              setOpen(false);
              line.onChanges();
            }}
            onBack={
              line.onBack &&
              ((target) => {
                setOpen(false);
                line.onBack?.(target);
              })
            }
          />
        </Dialog>
      )}
    </div>
  );
}
