import { DropdownMenu } from "radix-ui";
import { useMe } from "../../api/queries.ts";
import { Icon, type IconName } from "../../parts/Icon.tsx";
import { isEnded } from "../../parts/Status.tsx";
import { webAddress } from "../../parts/webAddress.ts";
import { words } from "../../words/index.ts";
import type { Build } from "./data.ts";
import { type Act, archive } from "./Head.tsx";
import style from "./HeadMenu.module.css";
import { useNotifying } from "./notify.ts";

interface Props {
  build: Build;
  mayChange: boolean;
  act: Act;
  onKeys: () => void;
  announce: (text: string) => void;
  /** Whether there is a snapshot to download. */
  isSaved: boolean;
}

const WAITS: ReadonlySet<string> = new Set(["sleeping", "waiting", "needs_input"]);

/** What can be done with the build, and with this page of it. */
export function HeadMenu({ build, mayChange, act, onKeys, announce, isSaved }: Props) {
  const me = useMe();
  const temporal = webAddress(me.data?.server.temporal_ui_url ?? "")?.href;
  const notifying = useNotifying();
  const isOpen = !isEnded(build.status) && build.cancel_requested_at === null;
  const canWake = isOpen && WAITS.has(build.status);
  return (
    <DropdownMenu.Root modal={false}>
      <DropdownMenu.Trigger className={style.trigger} aria-label={words.build.menu}>
        <Icon name="more" size={20} />
      </DropdownMenu.Trigger>
      <DropdownMenu.Portal>
        <DropdownMenu.Content className={style.menu} align="end" sideOffset={6}>
          {mayChange && isOpen && (
            <>
              {canWake && <Item icon="play" text={words.build.actions.wake} onSelect={() => act("wake")} />}
              <Item icon="check" text={words.build.actions.finish} onSelect={() => act("finish")} />
              <Item icon="stop" text={words.build.actions.stop} onSelect={() => act("stop")} danger />
              <DropdownMenu.Separator className={style.line} />
            </>
          )}
          {isSaved && (
            <>
              <DownloadItem to={archive(build.id, "tar.gz")} text={words.build.actions.downloadTar} />
              <DownloadItem to={archive(build.id, "zip")} text={words.build.actions.downloadZip} />
              <DropdownMenu.Separator className={style.line} />
            </>
          )}
          <Item
            icon="copy"
            text={words.build.actions.copyId}
            onSelect={() => {
              navigator.clipboard.writeText(build.id).then(
                () => announce(words.build.done.copied),
                () => announce(words.build.done.notCopied),
              );
            }}
          />
          {temporal !== undefined && (
            <DropdownMenu.Item className={style.item} asChild>
              <a href={`${temporal}/workflows/build-${build.id}`} target="_blank" rel="noopener noreferrer">
                <Icon name="external" /> {words.build.actions.temporal}
              </a>
            </DropdownMenu.Item>
          )}
          <Item
            icon="bell"
            text={notifying.on ? words.build.actions.notifyOff : words.build.actions.notify}
            onSelect={notifying.toggle}
          />
          <Item icon="info" text={words.build.actions.keys} onSelect={onKeys} />
        </DropdownMenu.Content>
      </DropdownMenu.Portal>
    </DropdownMenu.Root>
  );
}

function Item(props: { icon: IconName; text: string; onSelect: () => void; danger?: boolean }) {
  return (
    <DropdownMenu.Item
      className={`${style.item} ${props.danger ? style.danger : ""}`}
      onSelect={() => props.onSelect()}
    >
      <Icon name={props.icon} /> {props.text}
    </DropdownMenu.Item>
  );
}

function DownloadItem({ to, text }: { to: string; text: string }) {
  return (
    <DropdownMenu.Item className={style.item} asChild>
      <a href={to} download>
        <Icon name="download" /> {text}
      </a>
    </DropdownMenu.Item>
  );
}
