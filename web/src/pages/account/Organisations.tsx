import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { keys, useMe } from "../../api/queries.ts";
import { Button } from "../../parts/Button.tsx";
import { Confirm } from "../../parts/Confirm.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { account as accountWords } from "../../words/account.ts";
import style from "./Account.module.css";
import { Item } from "./Item.tsx";

/** The organisations of the user, and their members. */
export function Organisations() {
  const client = useQueryClient();
  const me = useMe();
  const [making, setMaking] = useState(false);
  const [shown, setShown] = useState<Schemas["OrganisationOut"]>();
  const refresh = () => client.invalidateQueries({ queryKey: keys.me() });
  const make = useMutation({
    mutationFn: (name: string) => dataOf(api.POST("/v1/organisations", { body: { name } })),
    onSuccess: () => {
      setMaking(false);
      return refresh();
    },
  });
  return (
    <section className={style.card} aria-labelledby="organisations">
      <div className={style.head}>
        <h2 id="organisations">{accountWords.organisations}</h2>
        <Button onClick={() => setMaking(true)}>
          <Icon name="plus" /> {accountWords.makeOrganisation}
        </Button>
      </div>
      <p className={style.help}>{accountWords.organisationsHelp}</p>
      {me.isPending && <Skeleton />}
      {me.isError && <Failure error={me.error} retry={me.refetch} />}
      <ul className={style.list}>
        {me.data?.organisations.map((organisation) => (
          <Item
            key={organisation.id}
            title={
              <>
                <bdi>{printable(organisation.name)}</bdi>
                {organisation.is_personal && <small>{accountWords.personal}</small>}
              </>
            }
            facts={[
              [accountWords.role, accountWords.roles[organisation.role] ?? organisation.role],
              [accountWords.created, <Time key="made" at={organisation.created_at} as="ago" />],
            ]}
          >
            {!organisation.is_personal && (
              <Button small onClick={() => setShown(organisation)}>
                {accountWords.members}
              </Button>
            )}
          </Item>
        ))}
      </ul>
      {making && (
        <Dialog title={accountWords.makeOrganisation} onClose={() => setMaking(false)}>
          <form
            className={style.form}
            onSubmit={(event) => {
              event.preventDefault();
              if (!make.isPending) make.mutate(String(new FormData(event.currentTarget).get("name")).trim());
            }}
          >
            <div className={style.field}>
              <label htmlFor="organisation-name">{accountWords.organisationName}</label>
              <input id="organisation-name" name="name" required maxLength={120} autoComplete="organization" />
            </div>
            {make.isError && <Failure error={make.error} />}
            <div className={style.buttons}>
              <Button type="submit" kind="main" busy={make.isPending}>
                {accountWords.makeOrganisation}
              </Button>
              <Button onClick={() => setMaking(false)}>{accountWords.cancel}</Button>
            </div>
          </form>
        </Dialog>
      )}
      {shown !== undefined && (
        <Members organisation={shown} me={me.data?.user} onClose={() => setShown(undefined)} onLeft={refresh} />
      )}
    </section>
  );
}

function Members({
  organisation,
  me,
  onClose,
  onLeft,
}: {
  organisation: Schemas["OrganisationOut"];
  me: string | undefined;
  onClose: () => void;
  onLeft: () => Promise<unknown>;
}) {
  const client = useQueryClient();
  const queryKey = ["members", organisation.id];
  const path = { organisation_id: organisation.id };
  const list = useQuery({
    queryKey,
    queryFn: () => dataOf(api.GET("/v1/organisations/{organisation_id}/members", { params: { path } })),
  });
  const [removing, setRemoving] = useState<string>();
  const [cancelled, setCancelled] = useState(0);
  const refresh = () => client.invalidateQueries({ queryKey });
  const isOwner = organisation.role === "owner";
  const set = useMutation({
    mutationFn: ({ user, role }: { user: string; role: Schemas["Role"] }) =>
      dataOf(
        api.PUT("/v1/organisations/{organisation_id}/members/{user}", {
          params: { path: { ...path, user } },
          body: { role },
        }),
      ),
    onSuccess: (changed) => {
      setCancelled("cancelled_builds" in changed ? changed.cancelled_builds.length : 0);
      return refresh();
    },
  });

  function add(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (set.isPending) return;
    const element = event.currentTarget;
    const form = new FormData(element);
    const user = String(form.get("user")).trim();
    set.mutate({ user, role: form.get("role") as Schemas["Role"] }, { onSuccess: () => element.reset() });
  }

  return (
    <Dialog title={accountWords.showMembers(printable(organisation.name))} onClose={onClose}>
      {list.isPending && <Skeleton />}
      {list.isError && <Failure error={list.error} retry={list.refetch} />}
      {cancelled > 0 && <Notice kind="warn" title={accountWords.cancelledBuilds(cancelled)} alert />}
      {set.isError && <Failure error={set.error} />}
      <table>
        <thead>
          <tr>
            <th scope="col">{accountWords.member}</th>
            <th scope="col">{accountWords.role}</th>
            <th scope="col">{accountWords.actions}</th>
          </tr>
        </thead>
        <tbody>
          {list.data?.members.map((member) => (
            <tr key={member.user}>
              <th scope="row">
                <bdi>{printable(member.user)}</bdi>
              </th>
              <td>
                {isOwner ? (
                  <RoleChoice
                    label={`${accountWords.role}: ${member.user}`}
                    value={member.role}
                    onChange={(role) => set.mutate({ user: member.user, role })}
                  />
                ) : (
                  (accountWords.roles[member.role] ?? member.role)
                )}
              </td>
              <td>
                {(isOwner || member.user === me) && (
                  <Button small kind="danger" onClick={() => setRemoving(member.user)}>
                    {member.user === me ? accountWords.leave : accountWords.remove}
                  </Button>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {isOwner && (
        <form className={style.add} onSubmit={add}>
          <div className={style.field}>
            <label htmlFor="member-user">{accountWords.addMember}</label>
            <input
              id="member-user"
              name="user"
              required
              maxLength={200}
              autoComplete="off"
              aria-describedby="member-help"
            />
            <small id="member-help">{accountWords.addMemberHelp}</small>
          </div>
          <RoleChoice name="role" label={accountWords.role} value="member" />
          <Button type="submit" busy={set.isPending}>
            {accountWords.add}
          </Button>
        </form>
      )}
      {removing !== undefined && (
        <Confirm
          danger
          title={accountWords.removeTitle(printable(removing))}
          verb={removing === me ? accountWords.leave : accountWords.remove}
          onClose={() => setRemoving(undefined)}
          act={async () => {
            const removed = await dataOf(
              api.DELETE("/v1/organisations/{organisation_id}/members/{user}", {
                params: { path: { ...path, user: removing } },
              }),
            );
            setCancelled(removed.cancelled_builds.length);
            if (removing !== me) return refresh();
            onClose();
            return onLeft();
          }}
        >
          <p>{accountWords.removeHelp}</p>
        </Confirm>
      )}
    </Dialog>
  );
}

function RoleChoice({
  name,
  label,
  value,
  onChange,
}: {
  name?: string;
  label: string;
  value: Schemas["Role"];
  onChange?: (role: Schemas["Role"]) => void;
}) {
  return (
    <select
      name={name}
      aria-label={label}
      {...(onChange
        ? { value, onChange: (event) => onChange(event.currentTarget.value as Schemas["Role"]) }
        : { defaultValue: value })}
    >
      {Object.entries(accountWords.roles).map(([role, word]) => (
        <option key={role} value={role}>
          {word}
        </option>
      ))}
    </select>
  );
}
