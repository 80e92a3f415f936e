/** The events of a build's feed, as the API sends them, checked and with the defaults of what they leave out. */

type Kind = "text" | "integer" | "number" | "flag" | "texts" | "integers" | "integer map" | "text map";
type OrNull = `${Kind} or null`;
type Field = readonly [Kind | OrNull] | readonly [Kind | OrNull, unknown];

/**
 * The fields of each type's `data`: what a field holds, and its default if an event may leave it out.
 * `tests/golden/feeds/shapes.json` says the same, and a test compares that with `domain/events.py`.
 */
export const SHAPES = {
  answer: { number: ["integer"], text: ["text"], question_id: ["text or null", null] },
  budget: {
    budget_percent: ["integer or null", null],
    budget_level: ["text or null", null],
    text: ["text"],
    alert: ["flag", false],
  },
  compacted: { reason: ["text", ""], tokens_before: ["integer", 0], summary: ["text", ""] },
  gate_bounced: { number: ["integer"], findings: ["texts", []] },
  gate_passed: { number: ["integer"], tests_run: ["integer or null", null], screenshots: ["text map", {}] },
  gate_started: { number: ["integer"] },
  gate_step: { text: ["text"] },
  guard: { text: ["text"] },
  hook_failed: { error: ["text"] },
  host_refused: { host: ["text"], remedy: ["text", ""] },
  message: { number: ["integer"], text: ["text"] },
  message_withdrawn: { number: ["integer"] },
  messages_read: { numbers: ["integers"] },
  model: { model: ["text", ""], label: ["text", ""], plan: ["text", ""] },
  narration: { text: ["text", ""], claim: ["text or null", null] },
  phase_completed: {
    phase: ["integer", 0],
    commit: ["text or null", null],
    title: ["text", ""],
    files: ["integer or null", null],
    additions: ["integer or null", null],
    deletions: ["integer or null", null],
  },
  plan: { open: ["integer", 0], done: ["integer", 0], stories: ["texts", []] },
  preview: {
    state: ["text"],
    url: ["text or null", null],
    expires_at: ["text or null", null],
    reason: ["text or null", null],
  },
  product_judged: {
    number: ["integer"],
    model: ["text", ""],
    findings: ["texts", []],
    returned: ["flag", false],
    reason: ["text or null", null],
  },
  pushed: { commit: ["text"], branch: ["text", ""], repository: ["text", ""] },
  question: {
    question_id: ["text"],
    problem: ["text"],
    tried: ["texts", []],
    options: ["texts", []],
    default: ["text or null", null],
  },
  ready: { build_version: ["integer"], preview_url: ["text or null", null], phases_completed: ["integer", 0] },
  restore_asked: { number: ["integer"], snapshot: ["integer or null", null], commit: ["text or null", null] },
  restore_done: {
    number: ["integer"],
    snapshot: ["integer or null", null],
    commit: ["text or null", null],
    kept_as: ["integer or null", null],
    stored_as: ["integer or null", null],
  },
  restore_failed: { number: ["integer"], error: ["text or null", null] },
  resumed: { reason: ["text", ""], continuing_from: ["text", "where it was"], changes: ["texts", []] },
  snapshot_failed: { number: ["integer"], reason: ["text", ""], error: ["text", ""] },
  snapshot_stored: { number: ["integer"], reason: ["text", ""], bytes: ["integer", 0], files: ["integer", 0] },
  status: {
    status: ["text"],
    waiting_for: ["text or null", null],
    dependency: ["text or null", null],
    reason: ["text or null", null],
    wakes_at: ["text or null", null],
    wake_command: ["text or null", null],
  },
  tool_done: {
    tool_use_id: ["text"],
    name: ["text", ""],
    summary: ["text", ""],
    is_error: ["flag", false],
    seconds: ["number", 0.0],
  },
  tool_started: { tool_use_id: ["text"], name: ["text", ""], summary: ["text", ""] },
  turn_answered: {
    budget_percent: ["integer or null", null],
    budget_level: ["text or null", null],
    tokens: ["integer map", {}],
    tool_calls: ["integer", 0],
    stop_reason: ["text or null", null],
    estimated: ["flag", false],
  },
  turn_failed: { error: ["text"] },
  turn_started: { attempt: ["integer", 1] },
  turn_withdrawn: { claim: ["text or null", null] },
} as const satisfies Record<string, Record<string, Field>>;

export type EventType = keyof typeof SHAPES;

export const EVENT_TYPES = Object.keys(SHAPES) as EventType[];

interface Values {
  text: string;
  integer: number;
  number: number;
  flag: boolean;
  texts: readonly string[];
  integers: readonly number[];
  "integer map": Readonly<Record<string, number>>;
  "text map": Readonly<Record<string, string>>;
}
type Value<K> = K extends `${infer Inner extends Kind} or null`
  ? Values[Inner] | null
  : K extends Kind
    ? Values[K]
    : never;

export type EventData = {
  [T in EventType]: {
    -readonly [F in keyof (typeof SHAPES)[T]]: (typeof SHAPES)[T][F] extends readonly [infer K, ...unknown[]]
      ? Value<K>
      : never;
  };
};

interface Common {
  /** The build's own sequence, from 1 and without gaps. */
  readonly id: number;
  readonly turn: number | null;
  /** When it happened, in milliseconds since 1970. */
  readonly at: number;
}

/** An event of a type that this page knows. */
export type KnownEvent = { [T in EventType]: Common & { readonly type: T; readonly data: EventData[T] } }[EventType];

/** An event of a later version, or one whose data has another shape. */
export interface UnknownEvent extends Common {
  readonly type: "unknown";
  /** The type that the API has sent. */
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export type FeedEvent = KnownEvent | UnknownEvent;

/** An event of one type. */
export type EventOf<T extends FeedEvent["type"]> = Extract<FeedEvent, { type: T }>;

/** An event as `GET …/past-events` and the stream send it. */
export interface SentEvent {
  readonly id: number;
  readonly type: string;
  readonly turn: number | null;
  readonly created_at: string;
  readonly data: Readonly<Record<string, unknown>>;
}

const isInteger = (value: unknown): value is number => typeof value === "number" && Number.isInteger(value);
const isText = (value: unknown): value is string => typeof value === "string";

function isMap(value: unknown, fits: (each: unknown) => boolean): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value) && Object.values(value).every(fits);
}

const FITS: Record<Kind, (value: unknown) => boolean> = {
  text: isText,
  integer: isInteger,
  number: (value) => typeof value === "number",
  flag: (value) => typeof value === "boolean",
  texts: (value) => Array.isArray(value) && value.every(isText),
  integers: (value) => Array.isArray(value) && value.every(isInteger),
  "integer map": (value) => isMap(value, isInteger),
  "text map": (value) => isMap(value, isText),
};

function readData(
  fields: Record<string, Field>,
  data: Readonly<Record<string, unknown>>,
): Record<string, unknown> | null {
  const read: Record<string, unknown> = {};
  for (const name in fields) {
    const field = fields[name] as Field;
    if (!Object.hasOwn(data, name)) {
      if (field.length === 1) return null;
      read[name] = field[1];
      continue;
    }
    const value = data[name];
    const nullable = field[0].endsWith(" or null");
    const kind = (nullable ? field[0].slice(0, -" or null".length) : field[0]) as Kind;
    if (!(nullable && value === null) && !FITS[kind](value)) return null;
    read[name] = value;
  }
  return read;
}

/** Read an event. One of another version is `unknown`; it is never an error. */
export function readEvent(sent: SentEvent): FeedEvent {
  const common = { id: sent.id, turn: sent.turn, at: Date.parse(sent.created_at) };
  if (Object.hasOwn(SHAPES, sent.type)) {
    const data = readData(SHAPES[sent.type as EventType], sent.data);
    if (data !== null) return { ...common, type: sent.type as EventType, data } as KnownEvent;
  }
  return { ...common, type: "unknown", name: sent.type, data: sent.data };
}
