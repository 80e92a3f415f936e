import { usePageTitle } from "../../parts/title.ts";
import { words } from "../../words/index.ts";

export default function Usage() {
  usePageTitle(words.usage.title);
  return <h1>{words.usage.title}</h1>;
}
