/** What of a build is worth telling someone who does not look: whether, and once per change. Pure. */

import type { Schemas } from "../../api/client.ts";

export type NoticeKind = "needs_input" | "needs_other" | "sleeping" | "ready" | "failed";

/** What of the build's row decides. */
export type Watched = Pick<Schemas["BuildOut"], "id" | "status" | "waiting_for" | "wakes_at" | "turn"> & {
  readonly question: { readonly id: string } | null;
};

/** A change that people want to hear of. Two with the same `key` are the same change, in whatever tab it is seen. */
export interface Change {
  readonly kind: NoticeKind;
  readonly key: string;
}

/** The change that the build's state is, or null: an agent at work is no news. */
export function changeOf(build: Watched): Change | null {
  switch (build.status) {
    case "needs_input": {
      const kind = build.waiting_for === "founder" ? "needs_input" : "needs_other";
      return { kind, key: `${kind} ${build.question?.id ?? `turn ${build.turn}`}` };
    }
    case "sleeping":
      // The feed and the row write the same time in two ways.
      return { kind: "sleeping", key: `sleeping ${Date.parse(build.wakes_at ?? "")}` };
    case "ready":
    case "failed":
      return { kind: build.status, key: build.status };
    default:
      return null;
  }
}
