/** The text of a build's steer box, kept in this tab until the API has it. Pure, but for the storage that it is given. */

import type { Store } from "../../parts/storage.ts";

export interface Draft {
  readonly text: string;
  /** The key with which the text is sent, however often, once it has been sent. */
  readonly key: string | null;
  /** The text that was sent with the key. */
  readonly sent: string | null;
}

export const EMPTY_DRAFT: Draft = { text: "", key: null, sent: null };

const nameOf = (build: string) => `cofounder-draft-${build}`;

/** The draft of a build; empty if there is none, or one that can't be read. */
export function readDraft(store: Store, build: string): Draft {
  try {
    const value: unknown = JSON.parse(store.getItem(nameOf(build)) ?? "null");
    if (typeof value !== "object" || value === null) return EMPTY_DRAFT;
    const { text, key, sent } = value as Record<string, unknown>;
    if (typeof text !== "string") return EMPTY_DRAFT;
    return { text, key: typeof key === "string" ? key : null, sent: typeof sent === "string" ? sent : null };
  } catch {
    return EMPTY_DRAFT;
  }
}

/** Keep the draft of a build. */
export function writeDraft(store: Store, build: string, draft: Draft): void {
  if (draft.text === "" && draft.key === null) store.removeItem(nameOf(build));
  else store.setItem(nameOf(build), JSON.stringify(draft));
}

/** The draft as it is sent. A text that was sent before keeps its key, so that it arrives once; another one gets its own. */
export function toSend(draft: Draft, newKey: () => string): Draft & { key: string } {
  const text = draft.text.trim();
  return { text: draft.text, key: draft.key !== null && draft.sent === text ? draft.key : newKey(), sent: text };
}

/** Whether the draft's text is the one that was sent last: only that one may be sent again without being asked to. */
export function isAsSent(draft: Draft): boolean {
  return draft.key !== null && draft.sent === draft.text.trim();
}

/** The draft once the API has this text: empty, unless it has been changed meanwhile. */
export function afterSending(draft: Draft, sent: string): Draft {
  return draft.text.trim() === sent ? EMPTY_DRAFT : { ...EMPTY_DRAFT, text: draft.text };
}

/** The draft with the text of a message that was taken back before its own. */
export function withMessage(draft: Draft, message: string): Draft {
  return { ...EMPTY_DRAFT, text: draft.text.trim() === "" ? message : `${message}\n${draft.text}` };
}
