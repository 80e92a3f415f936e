import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, type RefObject, useEffect, useId, useLayoutEffect, useRef, useState } from "react";
import { api, idempotencyKey, Problem, type Schemas } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";
import { Button } from "../../parts/Button.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { printable } from "../../parts/printable.ts";
import { tabStorage } from "../../parts/storage.ts";
import { steer as text } from "../../words/build.ts";
import { type Build, useMessages } from "./data.ts";
import { afterSending, type Draft, isAsSent, readDraft, toSend, withMessage, writeDraft } from "./draft.ts";
import style from "./Steer.module.css";

type Message = Schemas["MessageOut"];

/** The most characters of a message: `MESSAGE_MAX_CHARACTERS` of the API. */
const MOST = 10_000;
const LINES = 8;
/** A message that Cofounder has not answered is sent again after so long. */
const RESEND_MS = 5_000;

interface Props {
  build: Build;
  /** Whether the feed is connected. */
  isLive: boolean;
  field: RefObject<HTMLTextAreaElement | null>;
  announce: (text: string) => void;
}

/** A box to tell the agent something, with receipts of what it was told. */
export function Steer({ build, isLive, field, announce }: Props) {
  const [draft, setDraft] = useState<Draft>(() => readDraft(tabStorage, build.id));
  // What waits for an answer of the API goes on from the draft as it is then, not as it was.
  const latest = useRef(draft);
  const inFlight = useRef(false);
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState<Problem | undefined>(undefined);
  const [sent, setSent] = useState<ReadonlySet<number>>(new Set());
  const client = useQueryClient();
  const id = useId();
  const isTooLong = [...draft.text.trim()].length > MOST;

  function change(next: Draft) {
    latest.current = next;
    setDraft(next);
    writeDraft(tabStorage, build.id, next);
  }

  async function send() {
    if (inFlight.current || draft.text.trim() === "" || isTooLong) return;
    inFlight.current = true;
    const sending = toSend(draft, idempotencyKey);
    const message = sending.text.trim();
    // The key is kept before it is used: after a reload the same text still arrives once.
    change(sending);
    setBusy(true);
    try {
      const { data } = await api.POST("/v1/builds/{build_id}/messages", {
        params: { path: { build_id: build.id }, header: { "idempotency-key": sending.key } },
        body: { text: message },
      });
      change(afterSending(latest.current, message));
      setTrouble(undefined);
      if (data !== undefined) setSent((before) => new Set(before).add(data.number));
      announce(text.sent);
      await client.invalidateQueries({ queryKey: keys.ofBuild(build.id, "messages") });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setTrouble(error);
    } finally {
      inFlight.current = false;
      setBusy(false);
    }
  }

  const isDeadLine = trouble !== undefined && (trouble.kind === "unreachable" || trouble.status >= 500);
  const isResent = isDeadLine && isAsSent(draft);
  useResend(isResent ? trouble : undefined, isLive, () => void send());
  useHeight(field, draft.text || placeholderOf(build));

  function takenBack(message: Message) {
    change(withMessage(latest.current, message.text));
    setTrouble(undefined);
    announce(text.takenBack);
    field.current?.focus();
  }

  return (
    <form
      className={style.steer}
      onSubmit={(event: FormEvent) => {
        event.preventDefault();
        void send();
      }}
    >
      <Receipts build={build} sent={sent} onTakenBack={takenBack} />
      <div className={style.box}>
        <label htmlFor={id} className="visually-hidden">
          {text.label}
        </label>
        <textarea
          id={id}
          ref={field}
          rows={1}
          value={draft.text}
          placeholder={placeholderOf(build)}
          aria-keyshortcuts="Control+Enter Meta+Enter"
          aria-invalid={isTooLong || undefined}
          aria-describedby={isTooLong || trouble !== undefined ? `${id}-trouble` : undefined}
          onChange={(event) => {
            change({ ...draft, text: event.target.value });
            setTrouble(undefined);
          }}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
              event.preventDefault();
              void send();
            } else if (event.key === "Escape") {
              event.currentTarget.blur();
            }
          }}
        />
        <Button
          type="submit"
          kind="main"
          busy={busy}
          aria-disabled={draft.text.trim() === "" || isTooLong}
          title={sendsBy()}
        >
          {text.send}
        </Button>
      </div>
      {(isTooLong || trouble !== undefined) && (
        <div id={`${id}-trouble`} className={style.trouble} role="alert">
          <Icon name="warning" />
          {isTooLong ? (
            <span>{text.tooLong([...draft.text.trim()].length, MOST)}</span>
          ) : (
            <>
              <span>{isResent ? text.notSent : isDeadLine ? text.notAnswered : printable(trouble?.message ?? "")}</span>
              <Button small busy={busy} onClick={() => void send()}>
                {text.retry}
              </Button>
            </>
          )}
        </div>
      )}
    </form>
  );
}

/** The last messages: what waits, with a button to take it back, and what was read since it was sent here. */
function Receipts({
  build,
  sent,
  onTakenBack,
}: {
  build: Build;
  sent: ReadonlySet<number>;
  onTakenBack: (message: Message) => void;
}) {
  const messages = useMessages(build.id);
  const listed = messages.data?.messages ?? [];
  const waiting = listed.filter((message) => message.read_at === null && message.withdrawn_at === null);
  const lastRead = listed.findLast((message) => message.read_at !== null && sent.has(message.number));
  // One that was read before it could be taken back stays, with the reason, until something else is said.
  const [refused, setRefused] = useState<{ number: number; reason: string } | undefined>(undefined);
  useEffect(() => setRefused(undefined), [sent]);
  const late = listed.find((message) => message.number === refused?.number && !waiting.includes(message));
  const others = lastRead === undefined || lastRead === late || waiting.length > 0 ? waiting : [lastRead];
  const shown = late === undefined ? others : [late, ...others];
  if (shown.length === 0) return null;
  return (
    <ul className={style.receipts} aria-label={text.messages}>
      {shown.map((message) => (
        <Receipt
          key={message.number}
          message={message}
          build={build}
          onTakenBack={onTakenBack}
          trouble={message.number === refused?.number ? refused.reason : ""}
          onRefused={(reason) => setRefused({ number: message.number, reason })}
        />
      ))}
    </ul>
  );
}

function Receipt({
  message,
  build,
  onTakenBack,
  trouble,
  onRefused,
}: {
  message: Message;
  build: Build;
  onTakenBack: (message: Message) => void;
  /** Why it was not taken back. */
  trouble: string;
  onRefused: (reason: string) => void;
}) {
  const [busy, setBusy] = useState(false);
  const client = useQueryClient();
  const waits = message.read_at === null;

  async function takeBack() {
    setBusy(true);
    try {
      await api.DELETE("/v1/builds/{build_id}/messages/{number}", {
        params: { path: { build_id: build.id, number: message.number } },
      });
      onTakenBack(message);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      onRefused(error.message);
    } finally {
      setBusy(false);
      await client.invalidateQueries({ queryKey: keys.ofBuild(build.id, "messages") });
    }
  }

  return (
    <li className={style.receipt}>
      <Icon name={waits ? "clock" : "check"} size={14} />
      <span className={style.said}>{printable(message.text)}</span>
      <span className={style.fate}>
        {waits ? (build.status === "sleeping" ? text.waitsAsleep : text.waits) : text.read(message.turn ?? 0)}
      </span>
      {waits && message.question_id === null && (
        <Button kind="quiet" small busy={busy} onClick={() => void takeBack()}>
          {text.takeBack}
        </Button>
      )}
      {trouble !== "" && (
        <span className={style.refused} role="alert">
          {printable(trouble)}
        </span>
      )}
    </li>
  );
}

function placeholderOf(build: Build): string {
  switch (build.status) {
    case "sleeping":
      return text.placeholder.asleep;
    case "queued":
    case "waiting":
      return text.placeholder.waiting;
    case "needs_input":
      return build.waiting_for === "founder" ? text.placeholder.question : text.placeholder.waiting;
    case "checks":
      return text.placeholder.checking;
    default:
      return text.placeholder.working;
  }
}

function sendsBy(): string {
  return /Mac|iPhone|iPad/.test(navigator.userAgent) ? text.sendsMac : text.sends;
}

/** Send again what was not answered: when the network or the feed is back, and after a while in any case. */
function useResend(unanswered: Problem | undefined, isLive: boolean, resend: () => void): void {
  const latest = useRef(resend);
  latest.current = resend;
  useEffect(() => {
    if (unanswered === undefined) return;
    const again = () => latest.current();
    const timer = setTimeout(again, Math.max(RESEND_MS, (unanswered.retryAfter ?? 0) * 1000));
    addEventListener("online", again);
    return () => {
      clearTimeout(timer);
      removeEventListener("online", again);
    };
  }, [unanswered]);
  const wasLive = useRef(isLive);
  useEffect(() => {
    if (unanswered !== undefined && isLive && !wasLive.current) latest.current();
    wasLive.current = isLive;
  }, [unanswered, isLive]);
}

/** Let the box grow with its text, up to eight lines. */
function useHeight(field: RefObject<HTMLTextAreaElement | null>, content: string): void {
  useLayoutEffect(() => {
    const element = field.current;
    if (element === null) return;
    element.style.blockSize = "auto";
    const line = Number.parseFloat(getComputedStyle(element).lineHeight) || 22;
    element.style.blockSize = `${Math.min(element.scrollHeight + 2, line * LINES + 16)}px`;
  }, [field, content]);
}
