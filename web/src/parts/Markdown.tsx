import type { ReactNode } from "react";
import ReactMarkdown, { type Components } from "react-markdown";
import remarkGfm from "remark-gfm";
import { panels as panelsWords } from "../words/panels.ts";
import { ExternalLink } from "./ExternalLink.tsx";
import style from "./Markdown.module.css";
import { printable } from "./printable.ts";
import { Scroll } from "./Scroll.tsx";
import { webAddress } from "./webAddress.ts";

interface Props {
  text: string;
  /** What a link to another file of the workspace does. Without it, such a link is text. */
  onFile?: (href: string) => void;
}

interface Node {
  value?: string;
  alt?: string | null;
  children?: Node[];
}

/** Makes characters visible that would be obeyed, in every text of the document. */
function markUnseen() {
  return function mark(node: Node): void {
    if (typeof node.value === "string") node.value = printable(node.value);
    if (typeof node.alt === "string") node.alt = printable(node.alt);
    node.children?.forEach(mark);
  };
}

const PLUGINS = [remarkGfm, markUnseen];

/** The text that React nodes show. */
function textOf(node: ReactNode): string {
  if (typeof node === "string" || typeof node === "number") return String(node);
  if (Array.isArray(node)) return node.map(textOf).join("");
  if (typeof node === "object" && node !== null && "props" in node) {
    return textOf((node.props as { children?: ReactNode }).children);
  }
  return "";
}

/**
 * Markdown of the agent or of a user. HTML in it is shown as text, a picture as its description with a link: nothing is
 * loaded. Headings begin at the third level, below those of the page.
 */
export default function Markdown({ text, onFile }: Props) {
  const components: Components = {
    h1: ({ children }) => <h3 className={style.first}>{children}</h3>,
    h2: ({ children }) => <h4 className={style.second}>{children}</h4>,
    h3: ({ children }) => <h5>{children}</h5>,
    h4: ({ children }) => <h6>{children}</h6>,
    h5: ({ children }) => <h6>{children}</h6>,
    h6: ({ children }) => <h6>{children}</h6>,
    a: ({ href = "", children }) => {
      if (webAddress(href) !== undefined) return <ExternalLink href={href}>{textOf(children)}</ExternalLink>;
      if (onFile === undefined || !isPath(href)) return <>{children}</>;
      return (
        <button type="button" className={style.fileLink} onClick={() => onFile(href)}>
          {children}
        </button>
      );
    },
    img: ({ src, alt }) => {
      const label = panelsWords.documents.picture(alt ?? "");
      return typeof src === "string" && webAddress(src) !== undefined ? (
        <ExternalLink href={src}>{label}</ExternalLink>
      ) : (
        <em>{label}</em>
      );
    },
    table: ({ children }) => (
      <Scroll label={panelsWords.documents.table} className={style.table}>
        <table>{children}</table>
      </Scroll>
    ),
    pre: ({ children }) => (
      <Scroll label={panelsWords.documents.code} className={style.code}>
        <pre>{children}</pre>
      </Scroll>
    ),
  };
  return (
    <div className={style.markdown}>
      <ReactMarkdown remarkPlugins={PLUGINS} components={components} urlTransform={(url) => url}>
        {text}
      </ReactMarkdown>
    </div>
  );
}

/** Whether a link leads to a file beside this one, not to an address or a place in the text. */
function isPath(href: string): boolean {
  return href !== "" && !href.startsWith("#") && !href.startsWith("//") && !/^[a-z][a-z0-9+.-]*:/i.test(href);
}
