import { printable } from "./printable.ts";
import { showsHost, webAddress } from "./webAddress.ts";

/** A link that leaves the console: only http and https, in a new tab, with its host if the text does not show it. */
export function ExternalLink({ href, children }: { href: string; children?: string }) {
  const url = webAddress(href);
  const text = printable(children ?? href);
  if (url === undefined) return <>{text}</>;
  return (
    <a href={url.href} target="_blank" rel="noopener noreferrer nofollow">
      {text}
      {!showsHost(text, url) && <span> ({url.host})</span>}
    </a>
  );
}
