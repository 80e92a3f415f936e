"""Every activity that a worker runs, with its clients and settings."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from activities.bulk import BulkActivities
from activities.compact import CompactActivities
from activities.context import ContextActivities
from activities.dispatch import DispatchActivities
from activities.erasure import ErasureActivities
from activities.gate import GateActivities, GatePolicy
from activities.judge import Judge
from activities.lifecycle import LifecycleActivities
from activities.permits import PermitActivities
from activities.plan import PlanActivities
from activities.preview import PreviewActivities
from activities.prober import Probe, ProberActivities
from activities.question import QuestionActivities
from activities.reaper import ReaperActivities
from activities.recovery import RecoveryActivities
from activities.restore import RestoreActivities
from activities.slots import SlotActivities
from activities.snapshot import SnapshotActivities
from activities.think import ThinkActivities
from activities.turn.budget import CallBudget
from activities.turn.rates import CallRates
from activities.webhooks import WebhookActivities
from activities.workspace import WorkspaceActivities
from clients.cipher import cipher_of
from clients.model.providers import probe_providers
from clients.webhook_sender import WebhookSender
from clients.worker_clients import WorkerClients
from db.session import Sessions
from domain.status import Dependency
from services.permits import Permits
from settings import Settings

Activities = list[Callable[..., Any]]


def all_activities(settings: Settings, sessions: Sessions, clients: WorkerClients) -> Activities:
    """Every activity of this program, to be registered with a worker."""
    rates = CallRates(sessions, settings.model_rates, settings.model_rate_patience_seconds)
    return [
        *_project_activities(settings, sessions, clients),
        *_turn_activities(settings, sessions, clients, rates),
        *_workspace_activities(settings, sessions, clients),
        *_product_activities(settings, sessions, clients, rates),
        *_reaper_activities(settings, sessions, clients),
    ]


def _project_activities(settings: Settings, sessions: Sessions, clients: WorkerClients) -> Activities:
    """How a build starts, waits and ends."""
    context = ContextActivities(
        sessions,
        settings.model_prices,
        clients.providers,
        settings,
        fallback_model=settings.fallback_model,
        rehearsal_model=settings.rehearsal_model,
        egress_hosts=settings.reachable_hosts,
        budget=CallBudget(
            settings.model_prices,
            settings.max_output_tokens,
            settings.autonomous_agent,
            settings.sandbox_hours_per_day,
        ),
    )
    slots = SlotActivities(sessions)
    question = QuestionActivities(sessions)
    lifecycle = LifecycleActivities(sessions, clients.workflows)
    recovery = RecoveryActivities(sessions, settings)
    return [
        context.prepare_build,
        context.load_build_context,
        context.resolve_model,
        context.load_changed_settings,
        slots.claim_slot,
        question.ask_founder,
        recovery.load_state,
        lifecycle.record_status,
        lifecycle.start_preview,
        lifecycle.finish_build,
        lifecycle.run_post_build_hook,
        lifecycle.note_hook_failure,
    ]


def _turn_activities(settings: Settings, sessions: Sessions, clients: WorkerClients, rates: CallRates) -> Activities:
    """A turn: the call of the model, and the tool calls that it asks for."""
    think = ThinkActivities(
        sessions,
        clients.providers,
        clients.store,
        settings.model_prices,
        settings.max_output_tokens,
        autonomous_agent=settings.autonomous_agent,
        sandbox_hours_per_day=settings.sandbox_hours_per_day,
        secrets=settings.secret_values(),
        rates=rates,
    )
    compact = CompactActivities(
        sessions,
        clients.providers,
        clients.store,
        settings.model_prices,
        autonomous_agent=settings.autonomous_agent,
        rates=rates,
    )
    dispatch = DispatchActivities(
        sessions,
        clients.sandboxes,
        clients.browser,
        clients.store,
        bash_timeout_max_seconds=settings.tool_timeout_max_seconds,
        secrets=settings.secret_values(),
    )
    return [think.think, think.check_budget, compact.compact, dispatch.dispatch_tool]


def _workspace_activities(settings: Settings, sessions: Sessions, clients: WorkerClients) -> Activities:
    """The workspace's sandbox and its snapshots."""
    permits = _permits(settings, sessions, clients)
    workspace = WorkspaceActivities(sessions, clients.sandboxes, clients.store, permits)
    snapshot = SnapshotActivities(sessions, clients.sandboxes, clients.store, settings.snapshots_kept)
    restore = RestoreActivities(sessions, clients.sandboxes, clients.store)
    return [
        workspace.open_workspace,
        workspace.pause_workspace,
        workspace.resume_workspace,
        workspace.release_workspace,
        snapshot.snapshot_workspace,
        snapshot.note_snapshot_failure,
        restore.restore_workspace,
        restore.finish_restore,
        PermitActivities(permits).claim_permit,
    ]


def _product_activities(settings: Settings, sessions: Sessions, clients: WorkerClients, rates: CallRates) -> Activities:
    """The product: the gate that checks it, and its preview."""
    evidence = GatePolicy(command_seconds=settings.gate_command_seconds, start_seconds=settings.gate_start_seconds)
    permits = _permits(settings, sessions, clients)
    judge = Judge(
        sessions,
        clients.providers,
        settings.model_prices,
        settings.judge_model,
        autonomous_agent=settings.autonomous_agent,
        rehearsal_model=settings.rehearsal_model,
        secrets=settings.secret_values(),
        rates=rates,
    )
    gate = GateActivities(
        sessions,
        clients.sandboxes,
        clients.store,
        clients.browser,
        evidence,
        permits,
        judge if settings.product_judge else None,
        preview_url=settings.preview_url,
    )
    plan = PlanActivities(sessions, clients.sandboxes, settings.secret_values())
    preview = PreviewActivities(
        sessions,
        clients.sandboxes,
        clients.store,
        permits,
        cipher_of(settings),
        preview_url=settings.preview_url,
        command_seconds=settings.gate_command_seconds,
        start_seconds=settings.gate_start_seconds,
    )
    return [
        plan.read_plan,
        gate.run_evidence_gate,
        preview.open_preview,
        preview.keep_preview,
        preview.record_preview,
        preview.close_preview,
    ]


def _permits(settings: Settings, sessions: Sessions, clients: WorkerClients) -> Permits:
    return Permits(sessions, clients.workflows, settings.sandbox_quota, settings.sandbox_starts_per_second)


def _reaper_activities(settings: Settings, sessions: Sessions, clients: WorkerClients) -> Activities:
    """What repairs the rest."""
    reaper = ReaperActivities(
        sessions,
        clients.workflows,
        clients.sandboxes,
        clients.store,
        spare_younger_than=timedelta(seconds=settings.reaper_spares_seconds),
        autonomous_agent=settings.autonomous_agent,
        permits=_permits(settings, sessions, clients),
        conversation_days=settings.conversation_days,
    )
    probes: dict[Dependency, Probe] = {
        Dependency.STORE: clients.store.probe,
        Dependency.SANDBOX: clients.sandboxes.probe,
        Dependency.MODEL: partial(probe_providers, clients.providers),
    }
    sender = WebhookSender(settings.webhook_private_hosts or ())
    webhooks = WebhookActivities(sessions, cipher_of(settings), sender, settings.public_url)
    erasing = ErasureActivities(sessions, clients.workflows, clients.sandboxes, clients.store)
    prober = ProberActivities(sessions, clients.workflows, probes)
    return [
        *(reaper.reap, reaper.reap_builds, reaper.reap_sandboxes, reaper.sweep_store, reaper.repeat_nudges),
        *(prober.report_outage, prober.read_dependency, prober.probe),
        webhooks.deliver_webhook,
        BulkActivities(sessions, clients.workflows).carry_out_batch,
        *(erasing.stop_builds, erasing.end_sandboxes, erasing.erase_objects, erasing.erase_executions),
        erasing.erase_rows,
    ]
