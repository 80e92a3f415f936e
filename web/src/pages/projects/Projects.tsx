import { usePageTitle } from "../../parts/title.ts";
import { words } from "../../words/index.ts";

export default function Projects() {
  usePageTitle(words.projects.title);
  return <h1>{words.projects.title}</h1>;
}
