import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

export type Schemas = components["schemas"];

/** A field that the API refuses, of a problem of type `invalid-request`. */
export interface FieldError {
  /** Such as `brief.features[0]`. */
  field: string;
  message: string;
}

/** An error of the API (RFC 9457), or of the way to it. Its message says what is wrong and what to do. */
export class Problem extends Error {
  /** The last part of the problem's `type`, such as `not-found`; `unreachable` if no answer came. */
  readonly kind: string;
  /** The HTTP status, or 0 if no answer came. */
  readonly status: number;
  readonly errors: FieldError[];
  /** Seconds after which the API wants to be asked again. */
  readonly retryAfter: number | undefined;
  readonly body: Record<string, unknown>;

  constructor(kind: string, status: number, detail: string, body: Record<string, unknown> = {}, retryAfter?: number) {
    super(detail);
    this.name = "Problem";
    this.kind = kind;
    this.status = status;
    this.body = body;
    this.errors = Array.isArray(body.errors) ? body.errors.filter(isFieldError) : [];
    this.retryAfter = retryAfter;
  }
}

function isFieldError(value: unknown): value is FieldError {
  if (typeof value !== "object" || value === null) return false;
  const { field, message } = value as Partial<FieldError>;
  return typeof field === "string" && typeof message === "string";
}

export const UNREACHABLE = "Cofounder does not answer. Check the network, and that it is running.";

/** The problem in a response that is not a success, whatever made it: the API, or a proxy before it. */
export async function problemOf(response: Response): Promise<Problem> {
  const seconds = Number(response.headers.get("Retry-After") ?? Number.NaN);
  const retryAfter = Number.isFinite(seconds) ? seconds : undefined;
  let body: Record<string, unknown> = {};
  if (response.headers.get("Content-Type")?.includes("json")) {
    try {
      const value: unknown = await response.json();
      if (typeof value === "object" && value !== null) body = value as Record<string, unknown>;
    } catch {
      // A cut answer: its status is all there is.
    }
  }
  const kind = typeof body.type === "string" ? (body.type.split(/[/:#]/).pop() ?? "error") : "error";
  const detail =
    typeof body.detail === "string" ? body.detail : `Cofounder answered with the status ${response.status}. Try again.`;
  return new Problem(kind, response.status, detail, body, retryAfter);
}

type SignedOutListener = () => void;
const signedOutListeners = new Set<SignedOutListener>();

/** Call `listener` whenever the API says that this browser is not signed in. Returns what ends that. */
export function onSignedOut(listener: SignedOutListener): () => void {
  signedOutListeners.add(listener);
  return () => signedOutListeners.delete(listener);
}

/** Say that this browser is signed out: the shell shows it over the page. */
export function signedOut(): void {
  for (const listener of signedOutListeners) listener();
}

const failures: Middleware = {
  async onResponse({ response }) {
    if (response.ok) return undefined;
    if (response.status === 401) signedOut();
    throw await problemOf(response);
  },
  onError({ error }) {
    if (error instanceof Problem || (error instanceof DOMException && error.name === "AbortError")) return error;
    return new Problem("unreachable", 0, UNREACHABLE);
  },
};

/** The API. A call that fails throws a `Problem`; so `data` is there if it returns, unless the answer has no body. */
export const api = createClient<paths>({ baseUrl: location.origin, credentials: "same-origin" });
api.use(failures);

/** The data of a call: `await dataOf(api.GET(...))`. */
export async function dataOf<T>(call: Promise<{ data?: T }>): Promise<T> {
  return (await call).data as T;
}

/** A key with which the API does a request once, however often it is sent. Make one per intent, not per attempt. */
export function idempotencyKey(): string {
  return crypto.randomUUID();
}
