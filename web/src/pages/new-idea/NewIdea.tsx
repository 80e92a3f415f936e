import { usePageTitle } from "../../parts/title.ts";
import { words } from "../../words/index.ts";

export default function NewIdea(_: { projectId?: string }) {
  usePageTitle(words.newIdea.title);
  return <h1>{words.newIdea.title}</h1>;
}
