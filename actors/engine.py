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
    NS_PER_S,
    C7Error,
    Clock,
    EngineDied,
    EngineLoaded,
    EngineLoadFailed,
    Infer,
    InferCompleted,
    OutOfMemoryError,
    SelfTestError,
    describe_error,
)
from runtimes import EngineCacheEntry, EngineHandle, InferenceRuntime, deserialize_cached_engine
from runtimes.sign_off.self_test import SELF_TEST_TOLERANCE, check_known_answers
from runtimes.store.engine_artifact import read_self_test

Report = Callable[[EngineLoaded | EngineLoadFailed | EngineDied], None]


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One engine of the flight. A lower `priority` is more urgent.

    `self_test_tolerance` bounds the relative error of its known answers after each load; an engine without known
    answers, which was compiled but never provisioned, has no self-test.
    """

    model: str
    entry: EngineCacheEntry
    priority: int = 100
    self_test_tolerance: float = SELF_TEST_TOLERANCE


class EngineActor(SupervisedActor):
    """Opens its engine on its own thread, tests and serves it, and tells the supervisor how each of them went.

    An engine is loaded once it has given its known answers. `load_timeout_ns` bounds the wait for the device to do so.
    """

    def __init__(
        self,
        spec: EngineSpec,
        generation: int,
        runtime: InferenceRuntime,
        gate: DeviceGate,
        mailbox: Mailbox,
        clock: Clock,
        report: Report,
        load_timeout_ns: int,
    ) -> None:
        super().__init__(mailbox)
        self._spec = spec
        self._generation = generation
        self._runtime = runtime
        self._gate = gate
        self._now_ns = clock.monotonic_ns
        self._report = report
        self._load_timeout_ns = load_timeout_ns
        self._handle: EngineHandle | None = None
        self._serves = False

    def open(self) -> None:
        started_ns = self._now_ns()
        self._handle = deserialize_cached_engine(self._runtime, self._spec.entry)
        self._test(self._handle, started_ns + self._load_timeout_ns)
        self._serves = True
        self._report(EngineLoaded(self._spec.model, self._generation, self._now_ns() - started_ns))

    def handle(self, message: Any) -> None:
        if message is not WORK_AVAILABLE:
            raise TypeError(f"an EngineActor takes work from its mailbox only, not a {type(message).__name__}")
        pending = self.mailbox.take()
        if pending is None:
            return
        if pending.done:  # given up while it waited: nothing to wait for the device for
            self.mailbox.finish()
            return
        if self._now_ns() >= pending.deadline_ns:
            pending.reject("expired", "the deadline passed in the queue")
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
        fact = EngineDied if self._serves else EngineLoadFailed
        try:
            if handle is not None:
                self._runtime.release_engine(handle)
        finally:
            self._report(fact(self._spec.model, self._generation, cause))

    def _test(self, handle: EngineHandle, deadline_ns: int) -> None:
        """One run like any other, through the gate: an engine in flight may be at work. Raises SelfTestError."""
        answers = read_self_test(self._spec.entry)
        if answers is None:
            return
        if not self._gate.enter(self._spec.priority, deadline_ns):
            raise SelfTestError(
                f"{self._spec.model}: self-test not run: the device was busy until its load timeout of"
                f" {self._load_timeout_ns / NS_PER_S:g} s was over"
            )
        try:
            check_known_answers(self._runtime, handle, answers, self._spec.self_test_tolerance)
        finally:
            self._gate.leave()

    def _serve(self, pending: Pending) -> None:
        started_ns = self._now_ns()
        if started_ns >= pending.deadline_ns:
            pending.reject("expired", "the deadline passed while it waited for the device")
            return
        request = pending.begin_run()
        if request is None or self._handle is None:
            return
        self.mailbox.running_since_ns = started_ns
        try:
            outputs = self._runtime.infer(self._handle, request.inputs)
        except BaseException as error:  # noqa: BLE001  # every way out of an engine is a verdict on it
            pending.end_run()
            self.mailbox.running_since_ns = None
            self._refuse(pending, request, error)
            return
        ended_ns = self._now_ns()
        pending.end_run()
        self.mailbox.ran(ended_ns - started_ns)
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
