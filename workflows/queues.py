"""Which task queue an activity goes to."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domain.payloads import LoopState
    from domain.worker_roles import WorkerRole, queue_of, separate_roles

from workflows.policies import Options


def on_queue_of(role: WorkerRole, state: LoopState, options: Options) -> Options:
    """The options for an activity of the role: on a queue of its own if the build was started with one.

    The build's context says so, which is in its history, so a replay decides the same. Builds that started before roles
    existed have one queue.
    """
    context = state.context
    if context is None or role not in separate_roles(context.separate_roles):
        return options
    return {**options, "task_queue": queue_of(workflow.info().task_queue, role)}
