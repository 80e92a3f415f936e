import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, dataOf } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { newIdea as newIdeaWords } from "../../words/new-idea.ts";
import { type Draft, emptyDraft, withBrief } from "./draft.ts";
import { BriefView, InterviewView } from "./ReviewStep.tsx";
import type { VersionConflict } from "./store.ts";

const text = newIdeaWords.problems;

interface Props {
  conflict: VersionConflict;
  projectId: string;
  close: () => void;
  keepMine: () => void;
  takeTheirs: (theirs: (mine: Draft) => Draft) => void;
}

/** Someone has stored another version meanwhile: look at theirs, take it, or keep one's own as the next. */
export function ConflictDialog({ conflict, projectId, close, keepMine, takeTheirs }: Props) {
  const [isShown, setShown] = useState(false);
  const theirs = useQuery({
    queryKey: ["conflict", projectId, conflict.document, conflict.version],
    queryFn: async (): Promise<(mine: Draft) => Draft> => {
      const params = { path: { project_id: projectId } };
      if (conflict.document === "brief") {
        const { brief } = await dataOf(api.GET("/v1/projects/{project_id}/brief", { params }));
        return (mine) => withBrief(mine, brief);
      }
      const { interview } = await dataOf(api.GET("/v1/projects/{project_id}/interview", { params }));
      return (mine) => ({ ...mine, questions: interview.questions ?? [], answers: interview.answers ?? {} });
    },
    enabled: isShown,
  });
  return (
    <Dialog
      title={text.conflict(conflict.version)}
      onClose={close}
      actions={
        <>
          {!isShown && <Button onClick={() => setShown(true)}>{text.seeTheirs}</Button>}
          {theirs.data !== undefined && <Button onClick={() => takeTheirs(theirs.data)}>{text.takeTheirs}</Button>}
          <Button kind="main" onClick={keepMine}>
            {text.keepMine(conflict.version + 1)}
          </Button>
        </>
      }
    >
      <p>{text.conflictText}</p>
      {isShown && (
        <>
          <h3>{text.theirs(conflict.version)}</h3>
          {theirs.data !== undefined ? (
            <Document draft={theirs.data(emptyDraft("", () => ""))} document={conflict.document} />
          ) : theirs.isError ? (
            <Failure error={theirs.error} retry={() => void theirs.refetch()} />
          ) : (
            <Skeleton />
          )}
        </>
      )}
    </Dialog>
  );
}

function Document({ draft, document }: { draft: Draft; document: "brief" | "interview" }) {
  return document === "brief" ? <BriefView draft={draft} /> : <InterviewView draft={draft} />;
}
