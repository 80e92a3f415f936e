import { useQueryClient } from "@tanstack/react-query";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";

/** Change the project, and show what it is afterwards. */
export function useChangeProject(projectId: string) {
  const client = useQueryClient();
  return async (change: Schemas["ProjectChange"]) => {
    const changed = await dataOf(
      api.PATCH("/v1/projects/{project_id}", { params: { path: { project_id: projectId } }, body: change }),
    );
    client.setQueryData(keys.project(projectId), changed);
    void client.invalidateQueries({ queryKey: keys.projects() });
    void client.invalidateQueries({ queryKey: keys.builds() });
  };
}
