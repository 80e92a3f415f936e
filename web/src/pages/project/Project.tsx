import { usePageTitle } from "../../parts/title.ts";
import { words } from "../../words/index.ts";

export default function Project(_: { id: string }) {
  usePageTitle(words.product.title);
  return <h1>{words.product.title}</h1>;
}
