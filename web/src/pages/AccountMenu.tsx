import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useLocation } from "wouter";
import { api } from "../api/client.ts";
import { keys } from "../api/queries.ts";
import { Menu, MenuChoice, MenuItem, MenuLabel, MenuLine } from "../parts/Menu.tsx";
import type { MenuOpening } from "../parts/MenuButton.tsx";
import { printable } from "../parts/printable.ts";
import { paths } from "../paths.ts";
import { chooseTheme, chosenTheme, type Theme } from "../theme.ts";
import { words } from "../words/index.ts";

interface Props extends MenuOpening {
  user: string;
  hasFleet: boolean;
  /** Tells the other tabs of this browser. */
  onSignedOut: () => void;
}

/** The menu of who is signed in: pages of theirs, the theme, and the way out. */
export default function AccountMenu({ user, hasFleet, onSignedOut, ...menu }: Props) {
  const [, navigate] = useLocation();
  const [theme, setTheme] = useState<Theme>(chosenTheme);
  const client = useQueryClient();

  async function signOut() {
    await api.DELETE("/v1/sign-ins/current");
    onSignedOut();
    client.removeQueries({ queryKey: keys.me() });
    window.location.assign(paths.signIn("/"));
  }

  return (
    <Menu {...menu}>
      <MenuLabel>{words.shell.signedInAs(printable(user))}</MenuLabel>
      <MenuItem icon="key" onSelect={() => navigate(paths.account())}>
        {words.shell.account}
      </MenuItem>
      <MenuItem icon="clock" onSelect={() => navigate(paths.usage())}>
        {words.shell.usage}
      </MenuItem>
      {hasFleet && (
        <MenuItem icon="panel" onSelect={() => navigate(paths.fleet())}>
          {words.shell.fleet}
        </MenuItem>
      )}
      <MenuItem icon="document" onSelect={() => window.location.assign(paths.apiDocs())}>
        {words.shell.apiDocs}
      </MenuItem>
      <MenuLine />
      <MenuLabel>{words.shell.theme}</MenuLabel>
      <MenuChoice
        value={theme}
        onChange={(chosen) => {
          chooseTheme(chosen);
          setTheme(chosen);
        }}
        options={words.shell.themes}
      />
      <MenuLine />
      <MenuItem icon="arrowLeft" onSelect={() => void signOut()}>
        {words.shell.signOut}
      </MenuItem>
    </Menu>
  );
}
