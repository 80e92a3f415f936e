import { printable } from "./printable.ts";

/** The address if it is one of http or https, else undefined. */
export function webAddress(href: string): URL | undefined {
  try {
    const url = new URL(href);
    return url.protocol === "http:" || url.protocol === "https:" ? url : undefined;
  } catch {
    return undefined;
  }
}

/** A link that leaves the console: only http and https, in a new tab, with its host if the text does not show it. */
export function ExternalLink({ href, children }: { href: string; children?: string }) {
  const url = webAddress(href);
  const text = printable(children ?? href);
  if (url === undefined) return <>{text}</>;
  return (
    <a href={url.href} target="_blank" rel="noopener noreferrer nofollow">
      {text}
      {!text.includes(url.host) && <span> ({url.host})</span>}
    </a>
  );
}
