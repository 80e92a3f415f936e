const DOLLARS = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", maximumFractionDigits: 4 });

/** Such as "$0.25", from microdollars. */
export function money(microdollars: number): string {
  return DOLLARS.format(microdollars / 1_000_000);
}

/** The microdollars of what a person has written as dollars, such as "2.50"; undefined if it is no such amount. */
export function microdollars(text: string): number | undefined {
  const match = /^\s*\$?\s*(\d{1,9})(?:[.,](\d{1,6}))?\s*$/.exec(text);
  if (match === null) return undefined;
  return Number(match[1]) * 1_000_000 + Number((match[2] ?? "").padEnd(6, "0"));
}
