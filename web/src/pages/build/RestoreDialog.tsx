import { useQueryClient } from "@tanstack/react-query";
import { useId, useState } from "react";
import { useLocation } from "wouter";
import { api, dataOf, idempotencyKey } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";
import { RequestKey } from "../../api/requestKey.ts";
import { isEnded } from "../../parts/Status.tsx";
import { paths } from "../../paths.ts";
import { restore as text } from "../../words/build.ts";
import { Confirm } from "./Confirm.tsx";
import type { Build } from "./data.ts";
import { nameOf, type Target } from "./restore.ts";

interface Props {
  build: Build;
  /** Where to; undefined for the last snapshot of an ended build. */
  target: Target | undefined;
  onClose: () => void;
}

/** Ask before the workspace is put back; of an ended build, begin a new one from there. */
export default function RestoreDialog({ build, target, onClose }: Props) {
  if (isEnded(build.status) || target === undefined) {
    return <NewBuild build={build} target={target} onClose={onClose} />;
  }
  return <GoBack build={build} target={target} onClose={onClose} />;
}

function GoBack({ build, target, onClose }: Props & { target: Target }) {
  const [key] = useState(idempotencyKey);
  const client = useQueryClient();

  async function restore() {
    await api.POST("/v1/builds/{build_id}/restore", {
      params: { path: { build_id: build.id }, header: { "idempotency-key": key } },
      body: target.kind === "snapshot" ? { snapshot: target.number } : { commit: target.commit },
    });
    await client.invalidateQueries({ queryKey: keys.ofBuild(build.id, "marks"), exact: true });
  }

  return (
    <Confirm title={text.title(nameOf(target))} yes={text.go} no={text.keep} onYes={restore} onClose={onClose}>
      <p>{text.kept}</p>
      <p>{text.commits}</p>
      <p>{text.told}</p>
    </Confirm>
  );
}

function NewBuild({ build, target, onClose }: Props) {
  const [key] = useState(() => new RequestKey(idempotencyKey));
  const [goal, setGoal] = useState(build.goal);
  const [, navigate] = useLocation();
  const client = useQueryClient();
  const id = useId();
  const snapshot = target?.kind === "snapshot" ? target.number : undefined;

  async function start() {
    const body = {
      goal,
      sleep_policy: build.sleep_policy,
      max_nights: build.max_nights,
      start_from: { build_id: build.id, snapshot },
    };
    const started = await dataOf(
      api.POST("/v1/projects/{project_id}/builds", {
        params: { path: { project_id: build.project_id }, header: { "idempotency-key": key.of(body) } },
        body,
      }),
    );
    await client.invalidateQueries({ queryKey: keys.builds() });
    navigate(paths.build(started.id));
  }

  return (
    <Confirm
      title={target === undefined ? text.newContinueTitle : text.newTitle(nameOf(target))}
      yes={text.start}
      no={text.keep}
      onYes={start}
      onClose={onClose}
    >
      <p>{target === undefined ? text.newContinueWhat : text.newWhat}</p>
      <label htmlFor={id}>{text.goal}</label>
      <textarea
        id={id}
        rows={4}
        maxLength={10_000}
        required
        value={goal}
        onChange={(event) => setGoal(event.target.value)}
      />
    </Confirm>
  );
}
