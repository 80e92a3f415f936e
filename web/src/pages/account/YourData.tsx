import { useState } from "react";
import { api, dataOf } from "../../api/client.ts";
import { Button, ButtonLink } from "../../parts/Button.tsx";
import { Confirm } from "../../parts/Confirm.tsx";
import { Field } from "../../parts/Field.tsx";
import { paths } from "../../paths.ts";
import { words } from "../../words/index.ts";
import style from "./Account.module.css";

/** Take what is known of you with you, or have it deleted. */
export function YourData({ user }: { user: string }) {
  const [isDeleting, setDeleting] = useState(false);
  return (
    <section className={style.card} aria-labelledby="your-data">
      <h2 id="your-data">{words.account.yourData}</h2>
      <p className={style.help}>{words.account.yourDataHelp}</p>
      <div className={style.buttons}>
        <ButtonLink to={paths.accountExport()} download>
          {words.account.exportData}
        </ButtonLink>
        <Button kind="danger" onClick={() => setDeleting(true)}>
          {words.account.deleteAccount}
        </Button>
      </div>
      {isDeleting && <DeleteAccount user={user} onClose={() => setDeleting(false)} />}
    </section>
  );
}

function DeleteAccount({ user, onClose }: { user: string; onClose: () => void }) {
  const [typed, setTyped] = useState("");
  const isMeant = typed.trim().toLowerCase() === words.account.deleteWords;

  async function act() {
    if (!isMeant) throw new Error(words.account.deleteWordsMissing);
    const erasure = await dataOf(api.DELETE("/v1/account", { body: { user_id: user } }));
    await api.DELETE("/v1/sign-ins/current");
    window.location.assign(paths.deleted(erasure.id));
    await new Promise(() => {}); // the dialog stays until the browser has left
  }

  return (
    <Confirm
      danger
      title={words.account.deleteAccountTitle}
      verb={words.account.deleteAccount}
      keep={words.account.keepAccount}
      act={act}
      onClose={onClose}
    >
      <p>{words.account.deleteAccountHelp}</p>
      <Field label={words.account.deleteLabel}>
        {(control) => (
          <input {...control} value={typed} autoComplete="off" onChange={(event) => setTyped(event.target.value)} />
        )}
      </Field>
    </Confirm>
  );
}
