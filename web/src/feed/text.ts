/** Texts of models and tools on one line. */

const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** The text on one line, without control characters; the same as `printable` of `cli/feed_state.py`. */
export function onOneLine(text: string): string {
  return text.replace(CONTROLS, "").trim().split(/\s+/).join(" ");
}
