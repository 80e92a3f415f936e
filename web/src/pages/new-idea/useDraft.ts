import { useCallback, useEffect, useRef, useState } from "react";
import { briefFromIdea } from "./brief.ts";
import { type Draft, featuresOf, hasContent, parseDraft } from "./draft.ts";

const WRITE_AFTER_MS = 250;

export interface KeptDraft {
  draft: Draft;
  /** The draft as it is now, also between two renderings. */
  current: () => Draft;
  update: (change: Partial<Draft> | ((draft: Draft) => Draft)) => void;
  /** Forget it here and in this browser. */
  discard: () => void;
  /** Whether it was kept from an earlier visit. */
  isResumed: boolean;
  /** False if this browser stores nothing, such as in a private window. */
  isKept: boolean;
}

/** A draft that survives a reload: kept in localStorage under `key` until it is discarded. */
export function useDraft(key: string, makeEmpty: () => Draft): KeptDraft {
  const [{ first, isResumed }] = useState(() => {
    const empty = makeEmpty();
    const kept = read(key, empty);
    return { first: kept ?? empty, isResumed: kept !== undefined && hasContent(kept) };
  });
  const [draft, setDraft] = useState(first);
  const [isKept, setKept] = useState(true);
  const latest = useRef(first);
  const unwritten = useRef(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);

  const write = useCallback(() => {
    clearTimeout(timer.current);
    if (!unwritten.current) return;
    try {
      localStorage.setItem(key, JSON.stringify(latest.current));
      unwritten.current = false;
      setKept(true);
    } catch {
      setKept(false);
    }
  }, [key]);

  const update = useCallback(
    (change: Partial<Draft> | ((draft: Draft) => Draft)) => {
      const next = typeof change === "function" ? change(latest.current) : { ...latest.current, ...change };
      latest.current = next;
      unwritten.current = true;
      setDraft(next);
      clearTimeout(timer.current);
      timer.current = setTimeout(write, WRITE_AFTER_MS);
    },
    [write],
  );

  const discard = useCallback(() => {
    clearTimeout(timer.current);
    unwritten.current = false;
    remove(key);
    latest.current = makeEmpty();
    setDraft(latest.current);
  }, [key, makeEmpty]);

  useEffect(() => {
    addEventListener("pagehide", write);
    document.addEventListener("visibilitychange", write);
    // Ask before the tab is closed only if something would be lost.
    const guard = (event: BeforeUnloadEvent) => {
      write();
      if (unwritten.current && hasContent(latest.current)) event.preventDefault();
    };
    addEventListener("beforeunload", guard);
    return () => {
      write();
      removeEventListener("pagehide", write);
      document.removeEventListener("visibilitychange", write);
      removeEventListener("beforeunload", guard);
    };
  }, [write]);

  const current = useCallback(() => latest.current, []);
  return { draft, current, update, discard, isResumed, isKept };
}

function read(key: string, empty: Draft): Draft | undefined {
  try {
    const text = localStorage.getItem(key);
    return text === null ? undefined : parseDraft(text, empty);
  } catch {
    return undefined;
  }
}

function remove(key: string) {
  try {
    localStorage.removeItem(key);
  } catch {
    // This browser stores nothing, so there is nothing to remove.
  }
}

/** Where the draft of an idea is kept: one for each user, and for each project that is edited. */
export function draftKey(user: string, projectId?: string): string {
  return `cofounder-draft:${user}:${projectId ?? "new"}`;
}

/** Begin the draft of a new idea with a sentence, filled in as the first step would. */
export function keepSentence(user: string, sentence: string, empty: Draft): void {
  const key = draftKey(user);
  const { name, problem, features } = briefFromIdea(sentence);
  const draft = { ...(read(key, empty) ?? empty), sentence, name, problem, features: featuresOf(features) };
  try {
    localStorage.setItem(key, JSON.stringify(draft));
  } catch {
    // A browser that stores nothing begins with empty fields.
  }
}
