const NUMBER = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

/** Such as "12.4 kB", from bytes. */
export function size(bytes: number): string {
  if (bytes < 1_000) return `${bytes} B`;
  if (bytes < 1_000_000) return `${NUMBER.format(bytes / 1_000)} kB`;
  if (bytes < 1_000_000_000) return `${NUMBER.format(bytes / 1_000_000)} MB`;
  return `${NUMBER.format(bytes / 1_000_000_000)} GB`;
}
