"""Fills a database with the builds of many founders, in every state, without workflows: for the operators' pages."""

from sqlalchemy import text

from db.session import Sessions
from db.transaction import transaction

_INSERTS = (
    """insert into users (id, plan) select 'fleet-' || n, case when n % 3 = 0 then 'partner' else 'bootstrapper' end
       from generate_series(1, :users) n on conflict do nothing""",
    """insert into projects (id, user_id, name)
       select gen_random_uuid(), 'fleet-' || (n % :users + 1), 'Fleet ' || n from generate_series(1, :builds) n""",
    """insert into builds (id, project_id, user_id, goal, body_hash, status, waiting_for, dependency, reason, model,
           wakes_at, created_at, status_at, started_at, admitted_at, last_event_id)
       select gen_random_uuid(), id, user_id, 'Build the product number ' || n || '.', '',
           case n % 10 when 0 then 'code' when 1 then 'checks' when 2 then 'waiting' when 3 then 'needs_input'
               when 4 then 'queued' else 'sleeping' end,
           case n % 10 when 3 then case when n % 20 = 3 then 'founder' else 'operator' end end,
           case n % 10 when 2 then case when n % 20 = 2 then 'model' else 'sandbox' end end,
           case when n % 10 > 1 then 'A reason of this build.' end,
           case when n % 2 = 0 then 'claude-haiku-5-5' else 'claude-sonnet-5-5' end,
           case when n % 10 > 4 then date_trunc('day', now()) + interval '1 day' end,
           now() - n * interval '7 seconds', now() - n * interval '3 seconds', now(), now(), 3
       from (select id, user_id, substr(name, 7)::int n from projects where name like 'Fleet %') numbered""",
    """insert into builds (id, project_id, user_id, goal, body_hash, status, created_at, status_at,
           started_at, closed_at)
       select gen_random_uuid(), id, user_id, 'Build an earlier version.', '', 'failed',
           now() - interval '5 days', now() - interval '4 days', now() - interval '5 days', now() - interval '4 days'
       from projects cross join generate_series(1, :closed) where name like 'Fleet %'""",
    """insert into turns (build_id, number, run_id, claim, outcome, answered_at)
       select builds.id, n, 'run', gen_random_uuid(), 'tool_use', now() - n * interval '1 hour'
       from builds cross join generate_series(1, :turns) n
       where closed_at is null and goal like 'Build the product %'""",
    """insert into user_days (user_id, day) select id, (now() at time zone 'UTC')::date - n
       from users cross join generate_series(0, 2) n where id like 'fleet-%' on conflict do nothing""",
    """insert into ledger (id, build_id, user_id, turn, day, model, state, input_tokens, output_tokens, cost, closed_at)
       select gen_random_uuid(), builds.id, user_id, n, (now() at time zone 'UTC')::date - n % 3, model, 'settled',
           1000, 100, 1000 + n, now()
       from builds cross join generate_series(1, :turns) n
       where closed_at is null and goal like 'Build the product %'""",
    """insert into events (build_id, id, type, data, created_at)
       select builds.id, n, 'status', '{"status": "code"}', now() - (3 - n) * interval '1 minute'
       from builds cross join generate_series(1, 3) n
       where closed_at is null and goal like 'Build the product %'""",
    "analyze",
)


async def fill_fleet(
    sessions: Sessions, builds: int, *, users: int | None = None, turns: int = 3, closed: int = 1
) -> None:
    """Insert open builds, some closed ones of the same projects, and their turns, money and events.

    Args:
        sessions: of the tables' owner.
        builds: the number of open builds. Half of them sleep.
        users: the number of users to whom they belong; by default a quarter of the builds.
        turns: of each open build.
        closed: closed builds of each project.
    """
    values = {"builds": builds, "users": users or max(1, builds // 4), "turns": turns, "closed": closed}
    for statement in _INSERTS:
        async with transaction(sessions) as tx:
            await tx.session.execute(
                text(statement), {name: v for name, v in values.items() if f":{name}" in statement}
            )
