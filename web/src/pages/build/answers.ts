/** The answers that were given in this tab, to tell them from those of others. Pure. */
export class OwnAnswers {
  readonly #sent = new Map<string, string>();
  readonly #stored = new Set<string>();

  /** The answer is on its way; whether it arrives is not known. */
  send(question: string, answer: string): void {
    this.#sent.set(question, answer);
  }

  /** The API has the answer. */
  store(question: string): void {
    this.#stored.add(question);
  }

  /** Whose answer a question has got; null: none. */
  isOwn(question: string, answer: string | null): boolean {
    return this.#stored.has(question) || (answer !== null && this.#sent.get(question) === answer);
  }
}
