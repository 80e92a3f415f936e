import { useState } from "react";
import type { Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { tabStorage } from "../../parts/storage.ts";
import { restore as text, build as words } from "../../words/build.ts";
import type { Build } from "./data.ts";
import { lastRestore, type Sent, type Target } from "./restore.ts";

interface Props {
  build: Build;
  /** The newest first. */
  events: readonly Sent[];
  phases: readonly Schemas["PhaseOut"][];
  /** Kept snapshots. */
  snapshots: readonly Schemas["SnapshotOut"][];
  onBack: ((target: Target) => void) | undefined;
}

const hiddenName = (build: string) => `cofounder-hidden-${build}`;

/** What has become of the wish to put the workspace back, and what the build has lost with a sandbox. Both can be hidden. */
export function Restored({ build, events, phases, snapshots, onBack }: Props) {
  const [hidden, setHidden] = useState(() => Number(tabStorage.getItem(hiddenName(build.id)) ?? 0));
  const restore = lastRestore(events, phases);
  const restoreEvent = events.find((event) => event.type.startsWith("restore_"));
  const resumed = events.find((event) => event.type === "resumed");
  const changes = Array.isArray(resumed?.data.changes)
    ? resumed.data.changes.filter((each) => typeof each === "string")
    : [];

  function hide(id: number) {
    const next = Math.max(hidden, id);
    tabStorage.setItem(hiddenName(build.id), String(next));
    setHidden(next);
  }

  return (
    <>
      {restore !== null && restoreEvent !== undefined && restoreEvent.id > hidden && (
        <Notice
          kind={restore.state === "failed" ? "bad" : restore.state === "done" ? "good" : "info"}
          title={
            restore.state === "failed"
              ? text.failed
              : restore.state === "done"
                ? text.done(printable(restore.target))
                : build.status === "sleeping"
                  ? text.askedAsleep(printable(restore.target))
                  : text.asked(printable(restore.target))
          }
        >
          {restore.error !== null && <p>{printable(restore.error)}</p>}
          {restore.state === "done" && restore.keptAs !== null && <p>{text.doneKept(restore.keptAs)}</p>}
          {restore.state !== "asked" && (
            <p>
              {restore.state === "done" &&
                restore.keptAs !== null &&
                onBack !== undefined &&
                snapshots.some((each) => each.number === restore.keptAs) && (
                  <Button small onClick={() => onBack({ kind: "snapshot", number: restore.keptAs ?? 0 })}>
                    {text.undo(restore.keptAs)}
                  </Button>
                )}{" "}
              <Button small kind="quiet" onClick={() => hide(restoreEvent.id)}>
                {words.hide}
              </Button>
            </p>
          )}
        </Notice>
      )}
      {resumed !== undefined && changes.length > 0 && resumed.id > hidden && (
        <Notice kind="warn" title={words.restored.title}>
          <p>{words.restored.from(printable(String(resumed.data.continuing_from ?? "where it was")))}</p>
          <ul>
            {changes.map((change) => (
              <li key={change}>{printable(change)}</li>
            ))}
          </ul>
          <Button small kind="quiet" onClick={() => hide(resumed.id)}>
            {words.hide}
          </Button>
        </Notice>
      )}
    </>
  );
}
