import { useState } from "react";
import { Button } from "../../parts/Button.tsx";
import { fleet as words } from "../../words/fleet.ts";
import { BulkDialog } from "./BulkDialog.tsx";
import type { BulkAct } from "./data.ts";
import style from "./Fleet.module.css";
import { whereOf } from "./filter.ts";

const ACTS: readonly BulkAct[] = ["wake", "finish", "cancel", "suspend"];

interface Props {
  selected: ReadonlySet<string>;
  total: number;
  /** The text of the filter that is shown. */
  where: string;
  onClear: () => void;
}

/** Acts on the builds that are selected; or, if none is, on all that match. */
export function BulkBar({ selected, total, where, onClear }: Props) {
  const [act, setAct] = useState<BulkAct>();
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
          kind={each === "cancel" || each === "suspend" ? "danger" : "plain"}
          onClick={() => setAct(each)}
        >
          {text.acts[each]}
        </Button>
      ))}
      {selected.size > 0 && (
        <Button small kind="quiet" onClick={onClear}>
          {text.clear}
        </Button>
      )}
      {act !== undefined && (
        <BulkDialog
          act={act}
          on={what}
          where={selected.size > 0 ? whereOf([...selected]) : where}
          onClose={() => setAct(undefined)}
          onBegun={() => {
            setAct(undefined);
            onClear();
          }}
        />
      )}
    </div>
  );
}
