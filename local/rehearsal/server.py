"""The HTTP server: routes, and what happens to a request on its way to an answer."""

import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from local.rehearsal.answers import Answers, Ask, check_window, conversation_key
from local.rehearsal.cache import InputUsage, breakpoints
from local.rehearsal.control import Control, Fault, Limits, Registration
from local.rehearsal.conversation import read_conversation
from local.rehearsal.error_faults import raise_error
from local.rehearsal.errors import ApiError
from local.rehearsal.headers import COMPACTION, FALLBACKS, check_headers, check_parameters
from local.rehearsal.judge import JudgeManner, is_structured
from local.rehearsal.models import known_models, model_info
from local.rehearsal.prefix import read_prefix
from local.rehearsal.rates import Rate
from local.rehearsal.replies import Iteration, message_json, stream_events
from local.rehearsal.requests import MAX_BODY_BYTES, check_images, check_request, check_size, parse_body
from local.rehearsal.seals import check_seals
from local.rehearsal.served_log import ServedLog, usage_record
from local.rehearsal.streams import MessageStream, Record, WholeMessage


class Rehearsal:
    """The route handlers, and the server's state: cache, fallbacks, registrations and log."""

    def __init__(
        self,
        *,
        log: Path | None = None,
        bodies: Path | None = None,
        think_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.control = Control(clock)
        self.answers = Answers(clock)
        self.log = ServedLog(log, bodies)
        self.think_seconds = think_seconds

    async def messages(self, request: Request) -> ASGIApp:
        """`POST /v1/messages`."""
        record = Record(_new_id("req_011C"), datetime.now(UTC).isoformat(), time.monotonic())
        raw = await request.body()
        self.log.keep_body(record.request_id, raw)
        try:
            return self._answer(request, raw, record)
        except ApiError as error:
            record.status, record.error = error.status, error.message
            self.log.append(record.line())
            return _error_response(error, record.request_id)

    def _answer(self, request: Request, raw: bytes, record: Record) -> ASGIApp:
        betas = check_headers(request.headers)
        body = self._parse(raw)
        record.model = str(body.get("model", ""))
        check_parameters(body, betas, request.headers["anthropic-version"])
        check_request(body)
        record.messages = len(body["messages"])
        prefix = read_prefix(body)
        record.conversation = conversation_key(prefix)
        check_seals(body, prefix)
        marks = breakpoints(prefix, body.get("cache_control"))
        conversation = read_conversation(body)
        limits = self.control.limits_for(conversation.system)
        check_size(len(raw), limits.body_bytes)
        check_images(body["messages"], limits.images)
        check_window(body, prefix, limits)
        messages = json.dumps(body["messages"], ensure_ascii=False) if self.control.reads_messages else ""
        kind = "compaction" if body.get("compaction") is not None else "judge" if is_structured(body) else "turn"
        fault = self.control.take_fault(conversation.system, messages, kind)
        record.fault = fault.kind if fault else None
        if fault:
            raise_error(fault.kind, fault.retry_after)
        self.control.rates.admit(record.model, self.answers.cache.uncached(prefix, marks))
        registration = self.control.registration_for(conversation.system)
        manner = self.control.judge_for(conversation.system)
        answer = self.answers.answer(Ask(body, prefix, conversation, registration, limits, fault, manner))
        record.stop_reason = answer.reply.stop_reason
        record.iterations = [_iteration_record(iteration) for iteration in answer.iterations]
        record.usage = {name: sum(entry[name] for entry in record.iterations) for name in usage_record(InputUsage(), 0)}
        if body.get("stream"):
            events = list(stream_events(answer.reply, answer.envelope))
            return MessageStream(events, fault, self.think_seconds, record, self.log, self.control.rates)
        message = message_json(answer.reply, answer.envelope)
        return WholeMessage(message, fault, self.think_seconds, record, self.log, self.control.rates)

    def _parse(self, raw: bytes) -> dict[str, Any]:
        largest = max([MAX_BODY_BYTES, *(limits.body_bytes for limits in self.control.limits)])
        return parse_body(raw, largest)

    async def count_tokens(self, request: Request) -> Response:
        """`POST /v1/messages/count_tokens`."""
        request_id = _new_id("req_011C")
        try:
            betas = check_headers(request.headers)
            body = self._parse(await request.body())
            check_parameters(body, betas, request.headers["anthropic-version"])
            check_request(body, counting=True)
            return _json({"input_tokens": read_prefix(body).tokens}, request_id)
        except ApiError as error:
            return _error_response(error, request_id)

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        request_id = _new_id("req_011C")
        try:
            betas = check_headers(request.headers)
        except ApiError as error:
            return _error_response(error, request_id)
        names = known_models()
        data = [_model_info(name, betas) for name in names]
        return _json({"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}, request_id)

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{id}`."""
        request_id = _new_id("req_011C")
        name = request.path_params["name"]
        try:
            betas = check_headers(request.headers)
            if name not in known_models():
                raise ApiError("not_found_error", f"model: {name}")
        except ApiError as error:
            return _error_response(error, request_id)
        return _json(_model_info(name, betas), request_id)

    # Control routes. They are not part of the vendor's API and need no key: the server listens on loopback only.

    async def served(self, _: Request) -> Response:
        """`GET /_rehearsal/served`."""
        return JSONResponse(self.log.lines())

    async def faults(self, request: Request) -> Response:
        """`GET`, `POST` (one or a list) and `DELETE /_rehearsal/faults`."""
        if request.method == "POST":
            return await _register(request, lambda value: self.control.add_fault(Fault.model_validate(value)))
        if request.method == "DELETE":
            self.control.faults.clear()
        return JSONResponse([fault.model_dump() for fault in self.control.faults])

    async def limits(self, request: Request) -> Response:
        """`GET`, `POST` (one or a list) and `DELETE /_rehearsal/limits`."""

        def add(value: Any) -> BaseModel:
            limits = Limits.model_validate(value)
            self.control.limits.append(limits)
            return limits

        if request.method == "POST":
            return await _register(request, add)
        if request.method == "DELETE":
            self.control.limits.clear()
        return JSONResponse([entry.model_dump() for entry in self.control.limits])

    async def rates(self, request: Request) -> Response:
        """`GET`, `POST` (one or a list) and `DELETE /_rehearsal/rates`."""
        rates = self.control.rates
        if request.method == "POST":
            return await _register(request, lambda value: rates.add(Rate.model_validate(value)))
        if request.method == "DELETE":
            rates.clear()
        return JSONResponse([rate.model_dump() for rate in rates.rates])

    async def scripts(self, request: Request) -> Response:
        """`GET`, `POST` (one or a list) and `DELETE /_rehearsal/scripts`."""

        def add(value: Any) -> BaseModel:
            registration = Registration.model_validate(value)
            self.control.scripts.append(registration)
            return registration

        if request.method == "POST":
            return await _register(request, add)
        if request.method == "DELETE":
            self.control.scripts.clear()
        return JSONResponse([entry.model_dump() for entry in self.control.scripts])

    async def judges(self, request: Request) -> Response:
        """`GET`, `POST` (one or a list) and `DELETE /_rehearsal/judges`."""

        def add(value: Any) -> BaseModel:
            manner = JudgeManner.model_validate(value)
            self.control.judges.append(manner)
            return manner

        if request.method == "POST":
            return await _register(request, add)
        if request.method == "DELETE":
            self.control.judges.clear()
        return JSONResponse([entry.model_dump() for entry in self.control.judges])

    async def health(self, _: Request) -> Response:
        """`GET /_rehearsal/health`."""
        return JSONResponse({"ok": True})


def create_app(rehearsal: Rehearsal) -> Starlette:
    """Return the application with the vendor's routes and the control routes."""
    return Starlette(
        routes=[
            Route("/v1/messages", rehearsal.messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", rehearsal.count_tokens, methods=["POST"]),
            Route("/v1/models", rehearsal.models),
            Route("/v1/models/{name}", rehearsal.model),
            Route("/_rehearsal/health", rehearsal.health),
            Route("/_rehearsal/served", rehearsal.served),
            Route("/_rehearsal/faults", rehearsal.faults, methods=["GET", "POST", "DELETE"]),
            Route("/_rehearsal/limits", rehearsal.limits, methods=["GET", "POST", "DELETE"]),
            Route("/_rehearsal/rates", rehearsal.rates, methods=["GET", "POST", "DELETE"]),
            Route("/_rehearsal/scripts", rehearsal.scripts, methods=["GET", "POST", "DELETE"]),
            Route("/_rehearsal/judges", rehearsal.judges, methods=["GET", "POST", "DELETE"]),
        ],
        exception_handlers={404: _not_found, 405: _not_found},
    )


async def _not_found(request: Request, _: Exception) -> Response:
    error = ApiError("not_found_error", f"The rehearsal model does not serve {request.method} {request.url.path}.")
    return _error_response(error, _new_id("req_011C"))


async def _register(request: Request, add: Callable[[Any], BaseModel]) -> Response:
    try:
        body = json.loads(await request.body())
        entries = [add(entry).model_dump() for entry in (body if isinstance(body, list) else [body])]
    except (ValidationError, ValueError) as error:
        return JSONResponse({"detail": str(error)}, status_code=422)
    return JSONResponse(entries if isinstance(body, list) else entries[0], status_code=201)


def _new_id(start: str) -> str:
    return start + secrets.token_hex(10)


def _json(value: Any, request_id: str) -> Response:
    return JSONResponse(value, headers={"request-id": request_id})


def _error_response(error: ApiError, request_id: str) -> Response:
    headers = {"request-id": request_id, **error.headers}
    return JSONResponse(error.body(request_id), status_code=error.status, headers=headers)


def _model_info(name: str, betas: frozenset[str]) -> dict[str, Any]:
    return model_info(name, compaction=COMPACTION in betas, fallbacks=FALLBACKS in betas)


def _iteration_record(iteration: Iteration) -> dict[str, Any]:
    tokens = usage_record(iteration.usage, iteration.output)
    return {"kind": iteration.kind, "model": iteration.model, **tokens, "billed": iteration.billed}
