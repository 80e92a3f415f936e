import { usePageTitle } from "../../parts/title.ts";
import { words } from "../../words/index.ts";

export default function Account() {
  usePageTitle(words.account.title);
  return <h1>{words.account.title}</h1>;
}
