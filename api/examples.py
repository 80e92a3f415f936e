"""Examples of request and response bodies, for the API's description. A test checks them against the schemas."""

from typing import Any

from domain.build_options import BuildOptions

_BUILD_ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
_LATER = "2026-11-24T12:21:30Z"

_PROJECT_ID = "9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11"
_BEFORE = "2026-11-24T12:00:00Z"

ORGANISATION: dict[str, Any] = {
    "id": "5c0b7b8e-3d0a-4f5f-8f0c-6a8a3a1c9d27",
    "name": "Pantry Pal Ltd",
    "is_personal": False,
    "role": "owner",
    "created_at": _BEFORE,
}
MEMBER: dict[str, Any] = {"user": "ada", "role": "member", "since": _BEFORE}
NEW_WEBHOOK: dict[str, Any] = {
    "url": "https://hooks.example.com/cofounder",
    "topics": ["build.needs_input", "build.ready", "build.failed"],
    "description": "The team's chat",
}
WEBHOOK: dict[str, Any] = {
    "id": "0d5b8a7c-6d1f-4e5c-9f0b-4c1a52a7e0f3",
    "organisation_id": ORGANISATION["id"],
    **NEW_WEBHOOK,
    "enabled": True,
    "disabled_reason": None,
    "created_by": "ada",
    "created_at": _BEFORE,
    "old_secret_until": None,
}
MADE_WEBHOOK: dict[str, Any] = {"webhook": WEBHOOK, "secret": "whsec_…"}
DELIVERY: dict[str, Any] = {
    "id": "7f0c7a52-4a55-4a5e-8a8f-0a1d2b3c4d5e",
    "topic": "build.ready",
    "build_id": _BUILD_ID,
    "event_id": 412,
    "state": "delivered",
    "attempts": 1,
    "status": 204,
    "error": None,
    "next_attempt_at": None,
    "created_at": _BEFORE,
    "ended_at": _LATER,
}
FLEET: dict[str, Any] = {
    "at": _LATER,
    "builds": [
        {
            "status": "waiting",
            "waiting_for": None,
            "dependency": "model",
            "version": None,
            "count": 212,
            "oldest_since": _BEFORE,
        }
    ],
    "turns_last_minute": 840,
    "spend_today": {
        "spent_microdollars": 412_600_000,
        "reserved_microdollars": 9_100_000,
        "limit_microdollars": 2_000_000_000,
        "by_plan": [{"key": "partner", "spent_microdollars": 412_600_000}],
        "by_model": [{"key": "claude-sonnet-5-5", "spent_microdollars": 412_600_000}],
    },
    "permits": [{"kind": "all", "used": 96, "quota": 100, "queued": 12}],
    "rates": [
        {
            "model": "claude-sonnet-5-5",
            "requests_left": 8.2,
            "input_left": 41_000.0,
            "output_left": 9_000.0,
            "blocked_until": None,
        }
    ],
    "dependencies": [
        {
            "name": "model",
            "state": "down",
            "since": _BEFORE,
            "next_probe_at": _LATER,
            "detail": "The model API does not answer.",
            "builds": 212,
        }
    ],
    "switches": [],
    "reaper": {"paused": False, "note": None, "last_run_at": _LATER, "steps": []},
    "workers": [{"role": "worker", "version": "1.0.0", "seen_at": _LATER}],
}
FLEET_BUILD: dict[str, Any] = {
    "id": _BUILD_ID,
    "user_id": "ada",
    "plan": "partner",
    "project_id": _PROJECT_ID,
    "project_name": "Pantry Pal",
    "goal": "Build the pantry list.",
    "status": "waiting",
    "waiting_for": None,
    "dependency": "model",
    "reason": "The model does not answer.",
    "turn": 12,
    "spent_microdollars": 410_000,
    "model": "claude-sonnet-5-5",
    "version": None,
    "since": _BEFORE,
    "wakes_at": None,
    "last_event_at": _BEFORE,
    "created_at": _BEFORE,
    "closed_at": None,
    "temporal_url": f"https://temporal.example.com/namespaces/default/workflows/build-{_BUILD_ID}",
}
_WHY: dict[str, Any] = {
    "kind": "waits_for_operator",
    "detail": "The model API does not accept the key (status 401).",
    "remedy": "Remove the cause, then: cofounder ops wake --where …",
}
STUCK: dict[str, Any] = {
    "builds": [{"build": FLEET_BUILD, "why": [_WHY]}],
    "others": [{"kind": "reaper", "detail": "What an operator must look at.", "remedy": "See: cofounder ops checks"}],
}
SPEND: dict[str, Any] = {
    "by": "user",
    "from": "2026-11-24",
    "to": "2026-11-24",
    "rows": [
        {
            "key": "ada",
            "calls": 412,
            "input_tokens": 120_000,
            "cache_write_tokens": 900_000,
            "cache_read_tokens": 20_000_000,
            "output_tokens": 310_000,
            "spent_microdollars": 14_200_000,
            "before_microdollars": 1_100_000.0,
        }
    ],
}
WHOLE_BUILD: dict[str, Any] = {
    "build": FLEET_BUILD,
    "why": [],
    "workflow": {
        "status": "running",
        "run_id": "5c0b7b8e-3d0a-4f5f-8f0c-6a8a3a1c9d27",
        "history_events": 412,
        "started_at": _BEFORE,
        "closed_at": None,
        "version": None,
        "task_attempt": 0,
        "problems": [],
        "pending_activities": [],
        "url": FLEET_BUILD["temporal_url"],
    },
    "temporal_answers": True,
    "sandbox_id": "i3kq9",
    "preview_url": None,
    "permit": {"role": "workspace", "queued_at": _BEFORE, "held_since": _BEFORE},
    "snapshots": [
        {
            "number": 3,
            "state": "stored",
            "reason": "phase",
            "archive_bytes": 81_220,
            "commit": "4f9d2ac1",
            "created_at": _BEFORE,
            "stored_at": _BEFORE,
        }
    ],
    "ledger": [
        {
            "model": "claude-sonnet-5-5",
            "kind": "turn",
            "state": "settled",
            "calls": 12,
            "spent_microdollars": 410_000,
        }
    ],
    "events": [{"id": 41, "type": "status", "turn": 12, "data": {"status": "waiting"}, "created_at": _BEFORE}],
    "wake_command": f"temporal workflow signal --workflow-id build-{_BUILD_ID} --name wake",
}
CHECKS: dict[str, Any] = {
    "checks": [
        {
            "name": "model",
            "state": "fail",
            "detail": "https://api.anthropic.com does not accept the key (status 401)",
            "remedy": "Set ANTHROPIC_API_KEY to a valid key.",
        }
    ]
}
FLEET_BUILDS: dict[str, Any] = {
    "builds": [FLEET_BUILD],
    "next_cursor": None,
    "total": 1,
    "where": "status=waiting and dependency=model",
    "temporal_query": 'WorkflowType = "BuildWorkflow" AND BuildStatus = "waiting" AND BuildWaitingFor = "model"',
    "temporal_query_left_out": [],
    "temporal_command": "temporal workflow list --namespace default --query …",
}
BRIEF: dict[str, Any] = {
    "name": "Pantry Pal",
    "problem": "People who cook forget what they have, and it spoils.",
    "features": ["A list of what is in the pantry", "A reminder before something spoils"],
}
INTERVIEW: dict[str, Any] = {
    "questions": [{"id": "who", "text": "Who is it for?"}],
    "answers": {"who": "People who cook for a family."},
}
PROJECT: dict[str, Any] = {
    "id": _PROJECT_ID,
    "organisation_id": ORGANISATION["id"],
    "name": "Pantry Pal",
    "status": "mvp_built",
    "last_build_version": 1,
    "brief_version": 1,
    "interview_version": 1,
    "created_at": _BEFORE,
    "archived_at": None,
}
WHOLE_PROJECT = PROJECT | {"brief": BRIEF, "interview": INTERVIEW}
STORED_BRIEF: dict[str, Any] = {"brief": BRIEF, "version": 2, "updated_at": _LATER}
STORED_INTERVIEW: dict[str, Any] = {"interview": INTERVIEW, "version": 2, "updated_at": _LATER}
NEW_PUSH: dict[str, Any] = {"url": "https://git.example.com/ada/pantry-pal.git", "token": "your-token"}
PUSH: dict[str, Any] = {
    "repository": "git.example.com/ada/pantry-pal.git",
    "branch": "main",
    "commit": "4f9d2ac1c0d14fd2b6e0d4a75a9a3c1de1b2c3d4",
    "snapshot": 7,
    "is_new": True,
}
_BUDGET: dict[str, Any] = {
    "percent": 42,
    "level": "green",
    "refreshes_at": "2026-11-25T00:00:00Z",
    "allowance": None,
    "spent": None,
    "reserved": None,
}
ACCOUNT: dict[str, Any] = {
    "user": "ada",
    "plan": "partner",
    "models": {"coder": "claude-opus-5-5"},
    "choices": {"coder": {"model": "claude-opus-5-5", "effort": "high", "fallbacks": []}},
    "suspended": False,
    "renewal_day": 15,
    "budget": _BUDGET | {"allowance": 6_000_000, "spent": 2_310_000, "reserved": 210_000},
    "topped_up": 0,
    "open_builds": [_BUILD_ID],
}
NEW_BUILDS: list[dict[str, Any]] = [
    {"goal": "Build the first version: a list, no login.", "max_nights": 7},
    {"goal": "Go on from the first version.", "start_from": {"build_id": _BUILD_ID}},
]
BUILD: dict[str, Any] = {
    "id": _BUILD_ID,
    "project_id": _PROJECT_ID,
    "project_name": "Pantry Pal",
    "goal": "Build the first version: a list, no login.",
    "started_by": "ada",
    "started_from": None,
    **BuildOptions().model_dump(mode="json"),
    "status": "sleeping",
    "waiting_for": None,
    "dependency": None,
    "reason": "Not enough of today's budget is left for the next step.",
    "question": None,
    "agent_questions": [],
    "wakes_at": "2026-11-25T00:00:00Z",
    "model": "claude-sonnet-5-5",
    "model_label": "claude-sonnet-5-5",
    "cost_microdollars": None,
    "judge_cost_microdollars": None,
    "judgement": {
        "gate": 1,
        "model": "claude-haiku-5-5",
        "findings": [],
        "returned": False,
        "not_judged": None,
    },
    "budget": _BUDGET | {"percent": 97, "level": "red"},
    "phases_completed": 3,
    "turn": 41,
    "narration": "The list is sorted now. I run the tests.",
    "queue_place": None,
    "sandbox_hours": 0.42,
    "sandbox_id": "i2c9c1d3f8e7b",
    "preview_url": None,
    "build_version": None,
    "workspace_path": None,
    "last_event_id": 212,
    "settings": {},
    "created_at": _BEFORE,
    "started_at": _BEFORE,
    "cancel_requested_at": None,
    "closed_at": None,
}
REAPER: dict[str, Any] = {
    "paused": True,
    "note": "The sandbox service lists too little. (operator, 2026-11-24 12:00 UTC)",
    "last_run_at": _BEFORE,
    "steps": [{"step": "builds", "at": _BEFORE, "alert": None, "alert_at": None}],
}
PLANNED_ACT: dict[str, Any] = {
    "act": "close build",
    "id": _BUILD_ID,
    "why": "Its workflow: terminated.",
}
STEP_PLAN: dict[str, Any] = {"step": "builds", "count": 1, "acts": [PLANNED_ACT], "problem": None}
BULK_RUN: dict[str, Any] = {
    "id": "5b0e8a52-3f0c-4d55-9a31-6a2f4b1c7d10",
    "act": "wake",
    "where": "status=sleeping and plan=partner",
    "rate_per_second": 20,
    "reason": "The model answers again.",
    "by": "operator",
    "state": "running",
    "stopped_by": None,
    "total": 480,
    "pending": 300,
    "done": 178,
    "skipped": 2,
    "failed": 0,
    "created_at": _BEFORE,
    "ended_at": None,
}
BULK_BUILD: dict[str, Any] = {
    "build_id": _BUILD_ID,
    "user_id": "ada",
    "status": "code",
    "state": "skipped",
    "why": "The build does not wait: it is code.",
    "at": _LATER,
}
EXPECTED: dict[str, Any] = {
    "build_id": _BUILD_ID,
    "user_id": "ada",
    "status": "sleeping",
    "why_not": None,
}
SWITCH: dict[str, Any] = {
    "scope": "plan",
    "key": "partner",
    "off_since": _BEFORE,
    "reason": "The model is too slow today.",
    "by": "operator",
}
LIMIT: dict[str, Any] = {
    "name": "fleet_day",
    "value_microdollars": 200_000_000,
    "spent_microdollars": 31_400_000,
    "reserved_microdollars": 650_000,
    "reached_on": None,
    "set_by": "operator",
    "set_at": _BEFORE,
}
AUDIT_ENTRY: dict[str, Any] = {
    "id": 41,
    "at": _LATER,
    "actor": "operator",
    "how": "operator_token",
    "credential_id": None,
    "action": "account.change",
    "user_id": "ada",
    "org_id": None,
    "project_id": None,
    "build_id": None,
    "fields": {"changed": ["plan"]},
    "request_id": "5f0c8c1a7f0e4b0e9a550c7b8f1f2a33",
    "ip": "203.0.113.9",
}
INTERVIEW_QUESTIONS: dict[str, Any] = {
    "questions": [{"id": "first_users", "text": "Who are the first ten people that should use this?"}]
}
MESSAGE: dict[str, Any] = {
    "build_id": _BUILD_ID,
    "number": 1,
    "text": "Please leave the login out for now.",
    "created_at": _BEFORE,
    "read_at": None,
    "turn": None,
    "withdrawn_at": None,
    "question_id": None,
}
QUESTION: dict[str, Any] = {
    "id": "5f0c8c1a-7f0e-4b0e-9a55-0c7b8f1f2a33",
    "problem": "The tests fail with the same error three times in a row: no module named waitlist.",
    "tried": ["Turn 7: Install it. — bash: pip install waitlist", "Turn 8: Rename it. — bash: make test"],
    "options": ["Try another way.", "Leave this part out.", "Stop here and check what is there."],
    "default": None,
    "asked_at": _BEFORE,
    "answer": "Leave this part out.",
    "answered_at": _LATER,
}
RESTORE: dict[str, Any] = {
    "build_id": _BUILD_ID,
    "number": 1,
    "snapshot": 3,
    "commit": None,
    "state": "done",
    "error": None,
    "kept_as": 5,
    "stored_as": 6,
    "created_at": _BEFORE,
    "ended_at": _LATER,
}
PREVIEW: dict[str, Any] = {
    "build_id": _BUILD_ID,
    "state": "open",
    "url": "https://8000-i2c9c1d3f8e7b.e2b.app",
    "expires_at": "2026-11-24T13:21:30Z",
    "reason": None,
    "log": "The log of `start`:\nlistening on 8000",
}
PREVIEW_LINK: dict[str, Any] = {
    "id": "5b1f9a52-7f0e-4a7f-9d53-0c1b2a3d4e5f",
    "created_by": "founder",
    "created_at": "2026-11-24T12:21:30Z",
    "expires_at": "2026-12-01T12:21:30Z",
}
NEW_PREVIEW_LINK: dict[str, Any] = PREVIEW_LINK | {
    "url": f"http://127.0.0.1:8000/previews/{_BUILD_ID}#Yx5v3nOe1Jt8mZq4kLw2Rb7cHd0fGs9aPu6iTj_XoVE"
}
PRODUCT_SECRET: dict[str, Any] = {"name": "STRIPE_API_KEY", "set_at": _LATER}
SNAPSHOT: dict[str, Any] = {
    "number": 3,
    "reason": "phase",
    "final": False,
    "kept": False,
    "bytes": 48_213,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "files": 61,
    "commit": "4f9d2ac1b7e05d3c8a6f4e2d1c0b9a8f7e6d5c4b",
    "stored_at": _LATER,
}
SNAPSHOT_FILE: dict[str, Any] = {
    "path": "app/main.py",
    "kind": "file",
    "bytes": 1_204,
    "executable": False,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
SCREENSHOTS: dict[str, Any] = {
    "screenshots": [
        {
            "id": "gate-2-desktop",
            "kind": "gate",
            "viewport": "desktop",
            "path": f"/v1/builds/{_BUILD_ID}/screenshots/gate-2-desktop",
            "taken_at": _LATER,
            "width": 1280,
            "height": 800,
            "gate": 2,
            "turn": None,
            "tool_use_id": None,
            "kept": True,
        }
    ],
    "next_before": None,
}
_SUMS: dict[str, Any] = {
    "calls": 23,
    "input_tokens": 2_100,
    "cache_write_5m_tokens": 31_000,
    "cache_write_1h_tokens": 0,
    "cache_read_tokens": 410_000,
    "output_tokens": 9_800,
    "cost_microdollars": None,
    "judge_calls": 1,
    "judge_cost_microdollars": None,
}
USAGE: dict[str, Any] = {
    "from": "2026-11-01",
    "to": "2026-11-30",
    "cost_microdollars": None,
    "days": [_SUMS | {"day": "2026-11-24", "model": "claude-sonnet-5-5", "percent": 42}],
    "builds": [_SUMS | {"build_id": _BUILD_ID, "project_id": _PROJECT_ID, "project_name": "Pantry Pal"}],
}
READINESS: dict[str, Any] = {
    "ready": True,
    "degraded": False,
    "dependencies": {"database": {"ok": True, "detail": "answers"}},
}
ME: dict[str, Any] = {
    "user": "ada",
    "name": "Ada Lovelace",
    "email": "ada@example.com",
    "how": "api_key",
    "actor": "ada",
    "credential_id": "0123456789abcdef",
    "scopes": ["account:read", "builds:read"],
    "is_operator": False,
    "organisations": [ORGANISATION],
    "server": {
        "version": "0.1.0",
        "builds_on": True,
        "builds_off_reason": None,
        "rehearsal": False,
        "preview_origins": ["http://*.localhost:8000"],
        "temporal_ui_url": None,
    },
}
API_KEY: dict[str, Any] = {
    "id": "0123456789abcdef",
    "name": "the nightly export",
    "scopes": ["account:read", "builds:read"],
    "created_at": _BEFORE,
    "expires_at": "2027-02-22T09:30:00Z",
    "last_used_at": None,
    "replaced_by": None,
}
API_KEY_TEXT = f"cf_0123456789abcdef_{'0' * 72}"
SIGN_IN: dict[str, Any] = {
    "id": "5a1f1d0e-8a55-4b67-9f7c-d6a1c1c7a2b4",
    "method": "link",
    "scopes": ["account:read", "account:write", "builds:read", "builds:write"],
    "created_at": _BEFORE,
    "last_used_at": _LATER,
    "expires_at": "2026-12-24T09:30:00Z",
    "current": True,
}
SIGN_IN_LINK: dict[str, Any] = {
    "url": "http://127.0.0.1:8000/sign-in#code=kq0dHfM3oDk0tKJgk6cHCqj2bXn7QmJmJ0Yw2v3s4t4",
    "expires_at": "2026-11-24T09:40:00Z",
}
