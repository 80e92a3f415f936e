import { ButtonLink } from "../parts/Button.tsx";
import { Notice } from "../parts/Notice.tsx";
import { usePageTitle } from "../parts/title.ts";
import { paths } from "../paths.ts";
import { words } from "../words/index.ts";

export default function NotFound() {
  usePageTitle(words.shared.notFound);
  return (
    <Notice kind="info" isPage title={words.shared.notFound}>
      <p>{words.shared.notFoundHelp}</p>
      <ButtonLink to={paths.projects()}>{words.shared.toProjects}</ButtonLink>
    </Notice>
  );
}
