/** The idempotency key of a request that may be sent more than once: another body is another request, with a new key. */
export class RequestKey {
  readonly #newKey: () => string;
  #body: string | undefined;
  #key = "";

  constructor(newKey: () => string) {
    this.#newKey = newKey;
  }

  /** The key with which to send this body. */
  of(body: unknown): string {
    const text = JSON.stringify(body);
    if (text !== this.#body) {
      this.#body = text;
      this.#key = this.#newKey();
    }
    return this.#key;
  }
}
