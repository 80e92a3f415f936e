// The same set as in cli/printable_text.py; tests/golden/unseen_characters.json holds both to it.
// Characters that a terminal or a line of text would obey instead of show: controls, marks of direction, tags, no-width.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\u{d800}-\u{dfff}\u{e0000}-\u{e007f}]/gu;

/** The text with each control, direction and no-width character as a mark, so that text can't look like other text. */
export function printable(text: string): string {
  return text.replace(/\r\n/g, "\n").replace(UNSEEN, mark);
}

/** The same for what is one line, such as the name of a file: tabs and line ends are marks too. */
export function printableLine(text: string): string {
  return text.replace(/[\t\r\n]/g, mark).replace(UNSEEN, mark);
}

function mark(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  return code < 0x20 ? String.fromCodePoint(0x2400 + code) : `⟨${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}
