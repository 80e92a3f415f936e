import { Dialog } from "../../parts/Dialog.tsx";
import { setSingleKeys, useSingleKeys } from "../../parts/shortcuts.ts";
import { keyHelp as text } from "../../words/build.ts";
import style from "./KeyHelp.module.css";

/** The keys of the build's page, and the switch for them. */
export default function KeyHelp({ onClose }: { onClose: () => void }) {
  const on = useSingleKeys();
  return (
    <Dialog title={text.title} onClose={onClose}>
      <p>{text.intro}</p>
      <table className={style.keys}>
        <tbody>
          {text.keys.map(([keys, what]) => (
            <tr key={keys}>
              <th scope="row">
                {keys.split("  ").map((key) => (
                  <kbd key={key}>{key}</kbd>
                ))}
              </th>
              <td>{what}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <label className={style.switch}>
        <input type="checkbox" checked={on} onChange={(event) => setSingleKeys(event.target.checked)} />
        <span>
          {text.on}
          <small>{text.onHelp}</small>
        </span>
      </label>
    </Dialog>
  );
}
