import { api, dataOf, Problem } from "../../api/client.ts";
import { briefOf, type Draft, interviewOf, sameJson } from "./draft.ts";

export type Document = "brief" | "interview";

/** Someone has stored another version of a document since the edit began. */
export class VersionConflict extends Error {
  readonly document: Document;
  /** The version that is stored now. */
  readonly version: number;

  constructor(document: Document, version: number) {
    super(`version ${version} of the ${document} is stored`);
    this.document = document;
    this.version = version;
  }
}

/**
 * Store the project of the draft, or what has changed in it. A repeat stores nothing twice.
 *
 * Returns the draft with the project's id and the versions that are stored now. Throws a `VersionConflict` or a
 * `Problem`.
 */
export async function storeProject(draft: Draft): Promise<Draft & { projectId: string }> {
  const brief = briefOf(draft);
  const interview = interviewOf(draft);
  if (draft.projectId === null) {
    const body = { brief, interview, ...(draft.organisation === "" ? {} : { organisation_id: draft.organisation }) };
    const params = { header: { "idempotency-key": draft.projectKey } };
    let made: Awaited<ReturnType<typeof readProject>>;
    try {
      made = await dataOf(api.POST("/v1/projects", { params, body }));
    } catch (error) {
      // The answer to an earlier attempt was lost, and the draft has changed since: the project is stored already.
      const id =
        error instanceof Problem && error.kind === "idempotency-key-reused" ? error.body.project_id : undefined;
      if (typeof id !== "string") throw error;
      const stored = await readProject(id);
      return storeProject({
        ...draft,
        projectId: id,
        briefVersion: stored.brief_version ?? 0,
        interviewVersion: stored.interview_version ?? 0,
      });
    }
    return {
      ...draft,
      projectId: made.id,
      briefVersion: made.brief_version ?? 0,
      interviewVersion: made.interview_version ?? 0,
    };
  }
  const path = { project_id: draft.projectId };
  const stored = await readProject(draft.projectId);
  let { briefVersion, interviewVersion } = draft;
  if (sameJson(stored.brief, brief)) {
    briefVersion = stored.brief_version ?? 0;
  } else {
    briefVersion = await replace("brief", () =>
      dataOf(api.PUT("/v1/projects/{project_id}/brief", { params: { path }, body: { brief, version: briefVersion } })),
    );
  }
  if (sameJson(stored.interview ?? { questions: [], answers: {} }, interview)) {
    interviewVersion = stored.interview_version ?? 0;
  } else {
    interviewVersion = await replace("interview", () =>
      dataOf(
        api.PUT("/v1/projects/{project_id}/interview", {
          params: { path },
          body: { interview, version: interviewVersion },
        }),
      ),
    );
  }
  return { ...draft, projectId: draft.projectId, briefVersion, interviewVersion };
}

function readProject(id: string) {
  return dataOf(api.GET("/v1/projects/{project_id}", { params: { path: { project_id: id } } }));
}

async function replace(document: Document, put: () => Promise<{ version: number }>): Promise<number> {
  try {
    return (await put()).version;
  } catch (error) {
    if (error instanceof Problem && error.kind === "version-conflict") {
      throw new VersionConflict(document, Number(error.body.current_version));
    }
    throw error;
  }
}

/** Start the build of the draft's project. Repeats with the same options are one build. Returns its id. */
export async function startBuild(draft: Draft & { projectId: string }): Promise<string> {
  const build = await dataOf(
    api.POST("/v1/projects/{project_id}/builds", {
      params: { path: { project_id: draft.projectId }, header: { "idempotency-key": draft.buildKey } },
      body: {
        goal: draft.goal.trim(),
        sleep_policy: draft.policy === "stop" ? "stop" : "sleep",
        max_nights: Number(draft.nights),
      },
    }),
  );
  return build.id;
}
