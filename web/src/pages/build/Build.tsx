import { usePageTitle } from "../../parts/title.ts";
import { words } from "../../words/index.ts";

export default function Build(_: { id: string }) {
  usePageTitle(words.build.title);
  return <h1>{words.build.title}</h1>;
}
