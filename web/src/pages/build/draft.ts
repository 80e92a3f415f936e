/** The text of a build's steer box, kept in this tab until the API has it. Pure, but for the storage that it is given. */

/** `sessionStorage`, or one of a test. */
export type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

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
  try {
    if (draft.text === "" && draft.key === null) store.removeItem(nameOf(build));
    else store.setItem(nameOf(build), JSON.stringify(draft));
  } catch {
    // A full or forbidden storage: the text is in the box all the same.
  }
}

/** The draft as it is sent. A text that was sent before keeps its key, so that it arrives once; another one gets its own. */
export function toSend(draft: Draft, newKey: () => string): Draft & { key: string } {
  const text = draft.text.trim();
  return { text: draft.text, key: draft.key !== null && draft.sent === text ? draft.key : newKey(), sent: text };
}
