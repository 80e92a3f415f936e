import { useState } from "react";
import { api, dataOf } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Confirm } from "../../parts/Confirm.tsx";
import { Field } from "../../parts/Field.tsx";
import { paths } from "../../paths.ts";
import { account as accountWords } from "../../words/account.ts";
import style from "./Account.module.css";
import { Exports } from "./Exports.tsx";

/** Take what is known of you with you, or have it deleted. */
export function YourData({ user }: { user: string }) {
  const [isDeleting, setDeleting] = useState(false);
  return (
    <section className={style.card} aria-labelledby="your-data">
      <h2 id="your-data">{accountWords.yourData}</h2>
      <p className={style.help}>{accountWords.yourDataHelp}</p>
      <Exports />
      <div className={style.buttons}>
        <Button kind="danger" onClick={() => setDeleting(true)}>
          {accountWords.deleteAccount}
        </Button>
      </div>
      {isDeleting && <DeleteAccount user={user} onClose={() => setDeleting(false)} />}
    </section>
  );
}

function DeleteAccount({ user, onClose }: { user: string; onClose: () => void }) {
  const [typed, setTyped] = useState("");
  const isMeant = typed.trim().toLowerCase() === accountWords.deleteWords;

  async function act() {
    if (!isMeant) throw new Error(accountWords.deleteWordsMissing);
    const erasure = await dataOf(api.DELETE("/v1/account", { body: { user_id: user } }));
    await api.DELETE("/v1/sign-ins/current");
    window.location.assign(paths.deleted(erasure.id));
    await new Promise(() => {}); // the dialog stays until the browser has left
  }

  return (
    <Confirm
      danger
      title={accountWords.deleteAccountTitle}
      verb={accountWords.deleteAccount}
      keep={accountWords.keepAccount}
      act={act}
      onClose={onClose}
    >
      <p>{accountWords.deleteAccountHelp}</p>
      <Field label={accountWords.deleteLabel}>
        {(control) => (
          <input {...control} value={typed} autoComplete="off" onChange={(event) => setTyped(event.target.value)} />
        )}
      </Field>
    </Confirm>
  );
}
