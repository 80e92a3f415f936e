import { useMe } from "../../api/queries.ts";
import { Icon } from "../../parts/Icon.tsx";
import { Menu, MenuItem, MenuLine, MenuLink } from "../../parts/Menu.tsx";
import type { MenuOpening } from "../../parts/MenuButton.tsx";
import { isEnded } from "../../parts/Status.tsx";
import { webAddress } from "../../parts/webAddress.ts";
import { build as buildWords } from "../../words/build.ts";
import type { Build } from "./data.ts";
import { type Act, archive } from "./Head.tsx";
import { useNotifying } from "./notify.ts";

interface Props extends MenuOpening {
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
export default function HeadMenu({ build, mayChange, act, onKeys, announce, isSaved, ...menu }: Props) {
  const me = useMe();
  const temporal = webAddress(me.data?.server.temporal_ui_url ?? "")?.href;
  const notifying = useNotifying();
  const isOpen = !isEnded(build.status) && build.cancel_requested_at === null;
  const canWake = isOpen && WAITS.has(build.status);
  return (
    <Menu {...menu}>
      {mayChange && isOpen && (
        <>
          {canWake && (
            <MenuItem icon="play" onSelect={() => act("wake")}>
              {buildWords.actions.wake}
            </MenuItem>
          )}
          <MenuItem icon="check" onSelect={() => act("finish")}>
            {buildWords.actions.finish}
          </MenuItem>
          <MenuItem icon="stop" onSelect={() => act("stop")} danger>
            {buildWords.actions.stop}
          </MenuItem>
          <MenuLine />
        </>
      )}
      {isSaved && (
        <>
          <DownloadItem to={archive(build.id, "tar.gz")} text={buildWords.actions.downloadTar} />
          <DownloadItem to={archive(build.id, "zip")} text={buildWords.actions.downloadZip} />
          <MenuLine />
        </>
      )}
      <MenuItem
        icon="copy"
        onSelect={() => {
          navigator.clipboard.writeText(build.id).then(
            () => announce(buildWords.done.copied),
            () => announce(buildWords.done.notCopied),
          );
        }}
      >
        {buildWords.actions.copyId}
      </MenuItem>
      {temporal !== undefined && (
        <MenuLink>
          <a href={`${temporal}/workflows/build-${build.id}`} target="_blank" rel="noopener noreferrer">
            <Icon name="external" /> {buildWords.actions.temporal}
          </a>
        </MenuLink>
      )}
      <MenuItem icon="bell" onSelect={notifying.toggle}>
        {notifying.on ? buildWords.actions.notifyOff : buildWords.actions.notify}
      </MenuItem>
      <MenuItem icon="info" onSelect={onKeys}>
        {buildWords.actions.keys}
      </MenuItem>
    </Menu>
  );
}

function DownloadItem({ to, text }: { to: string; text: string }) {
  return (
    <MenuLink>
      <a href={to} download>
        <Icon name="download" /> {text}
      </a>
    </MenuLink>
  );
}
