"""One actor per model: it alone holds the engine's handle, and every run of the engine happens on its thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from loguru import logger

from actors.device_gate import DeviceGate
from actors.mailbox import WORK_AVAILABLE, Mailbox
from actors.pending import Pending
from actors.restart import judge
from actors.supervised import SupervisedActor, forget_frames
from messages import (
    NS_PER_MS,
    C7Error,
    Clock,
    EngineDied,
    EngineLoaded,
    EngineLoadFailed,
    Infer,
    InferCompleted,
    OutOfMemoryError,
    describe_error,
)
from runtimes import EngineCacheEntry, EngineHandle, InferenceRuntime, deserialize_cached_engine

Report = Callable[[EngineLoaded | EngineLoadFailed | EngineDied], None]


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One engine of the flight. A lower `priority` is more urgent."""

    model: str
    entry: EngineCacheEntry
    priority: int = 100


class EngineActor(SupervisedActor):
    """Opens its engine on its own thread, serves it, and tells the supervisor how each of both went."""

    def __init__(
        self,
        spec: EngineSpec,
        generation: int,
        runtime: InferenceRuntime,
        gate: DeviceGate,
        mailbox: Mailbox,
        clock: Clock,
        report: Report,
    ) -> None:
        super().__init__(mailbox)
        self._spec = spec
        self._generation = generation
        self._runtime = runtime
        self._gate = gate
        self._now_ns = clock.monotonic_ns
        self._report = report
        self._handle: EngineHandle | None = None

    def open(self) -> None:
        started_ns = self._now_ns()
        self._handle = deserialize_cached_engine(self._runtime, self._spec.entry)
        load_ns = self._now_ns() - started_ns
        self._report(EngineLoaded(self._spec.model, self._generation, load_ns))

    def handle(self, message: Any) -> None:
        if message is not WORK_AVAILABLE:
            raise TypeError(f"an EngineActor takes work from its mailbox only, not a {type(message).__name__}")
        pending = self.mailbox.take()
        if pending is None:
            return
        if pending.done:  # given up while it waited: nothing to wait for the device for
            self.mailbox.finish()
            return
        if self._gate.enter(self._spec.priority, pending.deadline_ns):
            try:
                self._serve(pending)
            finally:
                self._gate.leave()
        else:
            pending.reject("expired", "the device was busy until the deadline")
        self.mailbox.finish()

    def leave(self, cause: str) -> None:
        self.mailbox.abandon("engine_unavailable", cause)
        handle, self._handle = self._handle, None
        fact = EngineLoadFailed if handle is None else EngineDied
        try:
            if handle is not None:
                self._runtime.release_engine(handle)
        finally:
            self._report(fact(self._spec.model, self._generation, cause))

    def _serve(self, pending: Pending) -> None:
        started_ns = self._now_ns()
        if started_ns >= pending.deadline_ns:
            pending.reject("expired", "the deadline passed in the queue")
            return
        request = pending.begin_run()
        if request is None or self._handle is None:
            return
        try:
            outputs = self._runtime.infer(self._handle, request.inputs)
        except BaseException as error:  # noqa: BLE001  # every way out of an engine is a verdict on it
            pending.end_run()
            self._refuse(pending, request, error)
            return
        pending.end_run()
        ended_ns = self._now_ns()
        if ended_ns > pending.deadline_ns:
            pending.reject("expired", f"ran {(ended_ns - started_ns) / NS_PER_MS:.1f} ms, past its deadline")
            return
        pending.settle(
            InferCompleted(
                model=request.model,
                consumer=request.consumer,
                frame_id=request.frame_id,
                request_id=request.request_id,
                outputs=outputs,
                generation=self._generation,
                queued_ns=started_ns - pending.submitted_ns,
                run_ns=ended_ns - started_ns,
            )
        )

    def _refuse(self, pending: Pending, request: Infer, error: BaseException) -> None:
        verdict = judge(error)
        pending.reject(verdict.reason, describe_error(error))
        if isinstance(error, OutOfMemoryError):
            logger.error("C7 OOM during infer; backbone={}; frame={}", request.model, request.frame_id)
        elif not isinstance(error, C7Error):
            logger.error("C7 fault in runtime; backbone={}; error={}", request.model, describe_error(error))
        if verdict.engine_lives:
            forget_frames(error)
        else:
            self.fail(error)
