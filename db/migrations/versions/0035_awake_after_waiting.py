"""A build that waits for a dependency between its sleep and its work is awake, too

The function of 0034, which took only the last status before this one for where the build comes from.
"""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None
kind = "expand"

_QUEUE = """
create or replace function queue_webhook_deliveries() returns trigger language plpgsql
security definer set search_path from current as $$
declare
    status text := new.data ->> 'status';
    chosen text := case
        when new.type = 'ready' then 'build.ready'
        when status = 'sleeping' then 'build.asleep'
        when status = 'failed' then 'build.failed'
        when status = 'needs_input' and new.data ->> 'waiting_for' = 'founder' then 'build.needs_input'
        when status in ('starting', 'scaffold', 'code', 'checks') then 'build.awake'
    end;
    access text := coalesce(current_setting('app.every_row', true), '');
begin
    if chosen is null then
        return null;
    end if;
    perform set_config('app.every_row', 'on', true);
    insert into webhook_deliveries (webhook_id, topic, build_id, event_id)
    select webhooks.id, chosen, new.build_id, new.id
    from builds join projects on projects.id = builds.project_id join webhooks on webhooks.org_id = projects.org_id
    where builds.id = new.build_id and webhooks.disabled_at is null and webhooks.topics @> to_jsonb(chosen)
        and (chosen <> 'build.awake' or 'sleeping' = (
            select earlier.data ->> 'status' from events as earlier
            where earlier.build_id = new.build_id and earlier.id < new.id and earlier.type = 'status'
                and earlier.data ->> 'status' {ignored}
            order by earlier.id desc limit 1
        ))
    on conflict do nothing;
    perform set_config('app.every_row', access, true);
    return null;
end
$$
"""


def upgrade() -> None:
    op.execute(_QUEUE.format(ignored="<> 'waiting'"))


def downgrade() -> None:
    op.execute(_QUEUE.format(ignored="is not null"))
