import { useState } from "react";
import { Button } from "../../parts/Button.tsx";
import { fleet as words } from "../../words/fleet.ts";
import { BulkDialog } from "./BulkDialog.tsx";
import type { BulkAct } from "./data.ts";
import style from "./Fleet.module.css";
import { whereOf } from "./filter.ts";

const ACTS: readonly BulkAct[] = ["wake", "finish", "cancel", "suspend", "unsuspend"];

interface Props {
  selected: ReadonlySet<string>;
  total: number;
  /** The text of the filter that is shown. */
  where: string;
  /** The builds shown are those of the last filter: nothing can be done to them. */
  isOld: boolean;
  onClear: () => void;
}

/** Acts on the builds that are selected; or, if none is, on all that match. */
export function BulkBar({ selected, total, where, isOld, onClear }: Props) {
  // What the dialog is about, as it was when it was opened: the selection and the filter may change behind it.
  const [asked, setAsked] = useState<{ act: BulkAct; on: string; where: string }>();
  const text = words.bulk;
  if (total === 0) return null;
  const what = selected.size > 0 ? text.selected(selected.size) : text.matching(total);
  return (
    <div className={style.bulkBar} role="group" aria-label={text.title}>
      <span>{what}</span>
      {ACTS.map((each) => (
        <Button
          key={each}
          small
          disabled={isOld}
          kind={each === "cancel" || each === "suspend" ? "danger" : "plain"}
          onClick={() => setAsked({ act: each, on: what, where: selected.size > 0 ? whereOf([...selected]) : where })}
        >
          {text.acts[each]}
        </Button>
      ))}
      {selected.size > 0 && (
        <Button small kind="quiet" onClick={onClear}>
          {text.clear}
        </Button>
      )}
      {asked !== undefined && (
        <BulkDialog
          {...asked}
          onClose={() => setAsked(undefined)}
          onBegun={() => {
            setAsked(undefined);
            onClear();
          }}
        />
      )}
    </div>
  );
}
