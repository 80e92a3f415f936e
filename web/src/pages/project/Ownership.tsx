import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useLocation } from "wouter";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { keys, useMe } from "../../api/queries.ts";
import { Button } from "../../parts/Button.tsx";
import { Confirm } from "../../parts/Confirm.tsx";
import { Field } from "../../parts/Field.tsx";
import { printable } from "../../parts/printable.ts";
import { paths } from "../../paths.ts";
import { product as productWords } from "../../words/product.ts";
import { useChangeProject } from "./change.ts";
import style from "./Project.module.css";

const text = productWords;

/** To whom the project belongs, and the archive. */
export function Ownership({ project, hasOpenBuild }: { project: Schemas["ProjectOut"]; hasOpenBuild: boolean }) {
  const me = useMe();
  const client = useQueryClient();
  const change = useChangeProject(project.id);
  const [, navigate] = useLocation();
  const [asked, setAsked] = useState<"move" | "archive">();
  const organisations = me.data?.organisations ?? [];
  const own = organisations.find((each) => each.id === project.organisation_id);
  const others = organisations.filter((each) => each.role === "owner" && each.id !== project.organisation_id);
  const [target, setTarget] = useState<string>();
  const chosen = target ?? others[0]?.id;
  return (
    <section className={style.section} aria-labelledby="ownership">
      <h2 id="ownership">{text.settings}</h2>
      <div className={style.ownership}>
        <span>
          {text.belongsTo}:{" "}
          <strong>
            <bdi>{own === undefined ? text.foreign : nameOf(own)}</bdi>
          </strong>
        </span>
        {own?.role === "owner" && others.length > 0 && (
          <Button small onClick={() => setAsked("move")}>
            {text.move}
          </Button>
        )}
        {project.archived_at == null && !hasOpenBuild && (
          <Button small kind="danger" onClick={() => setAsked("archive")}>
            {text.archive}
          </Button>
        )}
      </div>
      {asked === "move" && (
        <Confirm
          title={text.moveTitle}
          verb={text.move}
          onClose={() => setAsked(undefined)}
          act={async () => {
            const params = { path: { project_id: project.id } };
            const moved = await dataOf(
              api.PUT("/v1/projects/{project_id}/organisation", { params, body: { organisation_id: chosen ?? "" } }),
            );
            client.setQueryData(keys.project(project.id), moved);
            void client.invalidateQueries({ queryKey: keys.projects() });
          }}
        >
          <p>{text.moveText}</p>
          <Field label={text.moveTo}>
            {(control) => (
              <select {...control} value={chosen} onChange={(event) => setTarget(event.target.value)}>
                {others.map((each) => (
                  <option key={each.id} value={each.id}>
                    {nameOf(each)}
                  </option>
                ))}
              </select>
            )}
          </Field>
        </Confirm>
      )}
      {asked === "archive" && (
        <Confirm
          title={text.archiveTitle}
          verb={text.archive}
          danger
          onClose={() => setAsked(undefined)}
          act={async () => {
            await change({ archived: true });
            navigate(paths.projects());
          }}
        >
          <p>{text.archiveText}</p>
        </Confirm>
      )}
    </section>
  );
}

function nameOf(organisation: Schemas["OrganisationOut"]): string {
  return organisation.is_personal ? text.personal : printable(organisation.name);
}
