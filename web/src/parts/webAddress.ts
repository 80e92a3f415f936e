/** The address if it is one of http or https, else undefined. */
export function webAddress(href: string): URL | undefined {
  try {
    const url = new URL(href);
    return url.protocol === "http:" || url.protocol === "https:" ? url : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the text of a link is itself an address, with or without https://, of the host that the link leads to. */
export function showsHost(text: string, url: URL): boolean {
  if (/\s/.test(text) || !text.includes(url.host)) return false;
  const shown = webAddress(text) ?? webAddress(`https://${text}`);
  return shown !== undefined && shown.host === url.host && shown.username === "" && shown.password === "";
}
