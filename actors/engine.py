"""One actor per model: it alone holds the engine's handle, and every run of the engine happens on its thread."""

from __future__ import annotations

from collections import Counter
from typing import Any

from loguru import logger

from actors.launch import EngineEnded, EngineSpec, EngineSurroundings, Kept, Launch
from actors.mailbox import WORK_AVAILABLE, Mailbox
from actors.pending import Pending
from actors.poison import DEATHS, PoisonWatch, Suspect, suspect_of
from actors.restart import REMEDIES, scope_of
from actors.supervised import SupervisedActor, forget_frames
from messages import (
    NS_PER_MS,
    NS_PER_S,
    EngineDied,
    EngineLoaded,
    EngineLoadFailed,
    FaultClass,
    Infer,
    InferCompleted,
    OutOfMemoryError,
    SelfTestError,
    classify_fault,
    describe_error,
)
from runtimes import EngineCacheEntry, EngineHandle, deserialize_cached_engine
from runtimes.available_memory import AvailableMemory
from runtimes.inference_runtime import SuspendsEngines
from runtimes.memory_budget import mib, restart_shortage, unreturned_bytes
from runtimes.sign_off.self_test import check_known_answers
from runtimes.store.engine_artifact import read_self_test


class EngineActor(SupervisedActor):
    """Opens its engine on its own thread, tests and serves it, and tells the supervisor how each of them went.

    An engine is loaded once it has given its known answers.
    """

    def __init__(
        self, spec: EngineSpec, launch: Launch, around: EngineSurroundings, mailbox: Mailbox, poison: PoisonWatch
    ) -> None:
        super().__init__(mailbox)
        self._spec = spec
        self._priority = spec.priority
        self._launch = launch
        self._generation = launch.generation
        self._around = around
        self._runtime = around.runtime
        self._gate = around.gate
        self._now_ns = around.clock.monotonic_ns
        self._poison = poison
        self._faults_in_a_row: Counter[FaultClass] = Counter()
        self._fault: FaultClass = "engine_fault"
        self._answers: bytes | None = None
        self._handle: EngineHandle | None = None
        self._serves = False
        self._proven = False

    def open(self) -> None:
        started_ns = self._now_ns()
        for stale in self._launch.stale:
            self._runtime.release_engine(stale.handle)
        if not self._launch.loads:
            self.stop()
            return
        self._handle, self._answers = self._load(self._spec.entry)
        self._test(self._handle, started_ns + self._around.load_timeout_ns)
        self._serves = True
        self._around.report(EngineLoaded(self._spec.model, self._generation, self._now_ns() - started_ns))

    def handle(self, message: Any) -> None:
        if message is not WORK_AVAILABLE:
            raise TypeError(f"an EngineActor takes work from its mailbox only, not a {type(message).__name__}")
        pending = self.mailbox.take()
        if pending is None:
            return
        if pending.outcome is not None:  # given up while it waited: nothing to wait for the device for
            self.mailbox.finish()
            return
        if self._now_ns() >= pending.deadline_ns:
            pending.reject("expired", "the deadline passed in the queue")
            self.mailbox.finish()
            return
        if self._gate.enter(self._priority, pending.deadline_ns):
            try:
                self._serve(pending)
            finally:
                self._gate.leave()
        elif self._gate.fenced:
            pending.reject("engine_unavailable", self._gate.fenced)
        else:
            pending.reject("expired", "the device was busy until the deadline")
        self.mailbox.finish()

    def fail(self, error: BaseException) -> None:
        if not self._serves:  # the faults of runs are counted where they are told
            self._around.count_fault(self._spec.model, classify_fault(error))
        self._condemn(error)
        super().fail(error)

    def _condemn(self, error: BaseException) -> None:
        """This error is what the engine ends of. No other one begins on a device that is gone."""
        self._fault = classify_fault(error)
        if REMEDIES[self._fault].scope == "process":
            self._gate.fence(f"{self._spec.model}: {describe_error(error)}")

    def leave(self, cause: str) -> None:
        self.mailbox.abandon("engine_unavailable", cause)
        self.mailbox.running_since_ns = self._now_ns()  # an engine that never lets go hangs like one that never returns
        try:
            self._put_away(cause)
        except BaseException as error:
            if REMEDIES[classify_fault(error)].scope == "process":
                self._condemn(error)
                cause = cause or describe_error(error)  # one that was told to stop has none, and ends of this
            raise
        finally:
            self.mailbox.running_since_ns = None
            fact = EngineDied if self._serves else EngineLoadFailed
            self._around.report(EngineEnded(fact(self._spec.model, self._generation, cause, self._fault)))

    # Loading

    def _load(self, entry: EngineCacheEntry) -> tuple[EngineHandle, bytes | None]:
        """From what the last start left, or from the store. Memory that did not come back is found before a load."""
        kept = self._launch.kept
        if kept is not None and isinstance(self._runtime, SuspendsEngines):
            return self._runtime.resume_engine(kept.handle), kept.answers
        available = self._available_memory() if self._generation > 1 else None
        shortage = "" if available is None else restart_shortage(entry, available)
        if shortage:
            raise OutOfMemoryError(f"{entry.model} is not loaded again: {shortage}")
        answers = read_self_test(entry)
        return deserialize_cached_engine(self._runtime, entry), answers

    def _available_memory(self) -> AvailableMemory | None:
        """None where nobody looks at it, or it cannot be read."""
        if self._around.available_memory is None:
            return None
        try:
            return self._around.available_memory()
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not cost the engine or its release
            logger.warning("C7 memory not known; backbone={}; {}", self._spec.model, describe_error(error))
            return None

    def _test(self, handle: EngineHandle, deadline_ns: int) -> None:
        """One run like any other, through the gate: an engine in flight may be at work. Raises SelfTestError."""
        if self._answers is None:
            return
        if not self._gate.enter(self._priority, deadline_ns):
            busy = (
                f"the device was busy until its load timeout of {self._around.load_timeout_ns / NS_PER_S:g} s was over"
            )
            raise SelfTestError(f"{self._spec.model}: self-test not run: {self._gate.fenced or busy}")
        self.mailbox.running_since_ns = self._now_ns()
        try:
            check_known_answers(self._runtime, handle, self._answers, self._spec.self_test_tolerance)
            self._proven = True
        except BaseException as error:
            self._condemn(error)  # before the device is left
            raise
        finally:
            self.mailbox.running_since_ns = None
            self._gate.leave()

    def _put_away(self, cause: str) -> None:
        """Suspend the engine where its next start may begin from it, release it otherwise."""
        handle, self._handle = self._handle, None
        if handle is None:
            if self._launch.kept is not None:
                self._runtime.release_engine(self._launch.kept.handle)
            return
        shelf = self._launch.shelf
        died = bool(cause) and self._serves and self._now_ns() >= self._launch.keeps_from_ns
        may_keep = died and shelf.is_open and REMEDIES[self._fault].keeps_module
        if may_keep and isinstance(self._runtime, SuspendsEngines):
            try:
                self._runtime.suspend_engine(handle)
            except BaseException as error:  # a SystemExit too: the engine still has to be freed
                if REMEDIES[classify_fault(error)].scope == "process":
                    raise
                # It is read and verified again, like any other.
                logger.error("C7 engine not suspended; backbone={}; {}", self._spec.model, describe_error(error))
            else:
                if shelf.put(Kept(handle, self._answers)):
                    return
        before = self._available_memory() if cause else None
        self._runtime.release_engine(handle)
        after = None if before is None else self._available_memory()
        missing = 0 if before is None or after is None else unreturned_bytes(self._spec.entry, before, after)
        if missing:
            logger.warning("C7 memory did not come back; backbone={}; missing={}", self._spec.model, mib(missing))

    # Serving

    def _serve(self, pending: Pending) -> None:
        started_ns = self._now_ns()
        if started_ns >= pending.deadline_ns:
            pending.reject("expired", "the deadline passed while it waited for the device")
            return
        request = pending.begin_run()
        if request is None or self._handle is None:
            return
        suspect = _suspect(request) if self._poison else None
        if suspect is not None and self._poison.is_poison(suspect, started_ns):
            pending.end_run()
            died = f"this engine died {DEATHS} times or more on {suspect}"
            pending.reject("engine_unavailable", f"quarantined as poison: {died}")
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
        self._proven = True
        if self._faults_in_a_row:
            self._faults_in_a_row.clear()
        if suspect is not None:
            self._poison.absolve(suspect)
        if ended_ns > pending.deadline_ns:
            pending.count_late_run(started_ns - pending.submitted_ns, ended_ns - started_ns)
            pending.reject("expired", f"ran {(ended_ns - started_ns) / NS_PER_MS:.1f} ms, past its deadline")
            return
        completed = InferCompleted(
            request.model,
            request.consumer,
            request.frame_id,
            request.request_id,
            outputs,
            self._generation,
            started_ns - pending.submitted_ns,
            ended_ns - started_ns,
        )
        del request  # who is woken has its arrays back
        pending.settle(completed)

    def _refuse(self, pending: Pending, request: Infer, error: BaseException) -> None:
        fault = classify_fault(error)
        detail = describe_error(error)
        self._faults_in_a_row[fault] += 1
        scope = scope_of(fault, self._faults_in_a_row[fault])
        self._around.count_fault(request.model, fault)
        if scope == "process":  # before anybody is told, and before the device is left
            self._condemn(error)
        pending.reject(REMEDIES[fault].reason, detail)
        if fault == "out_of_memory":
            logger.error("C7 OOM during infer; backbone={}; frame={}", request.model, request.frame_id)
        elif fault == "programming_error":
            logger.error("C7 fault in runtime; backbone={}; error={}", request.model, detail)
        if scope == "request":
            forget_frames(error)
            return
        if REMEDIES[fault].blames_inputs:
            self._blame(request)
        self.fail(error)

    def _blame(self, request: Infer) -> None:
        suspect = _suspect(request)
        if suspect is not None and self._poison.blame(suspect, self._now_ns(), proven=self._proven):
            logger.error(
                "C7 poison; backbone={} frame={}; refused from here on: {}", request.model, request.frame_id, suspect
            )


def _suspect(request: Infer) -> Suspect | None:
    try:
        return suspect_of(request)
    except Exception:  # noqa: BLE001  # a tensor that cannot describe itself has no signature to be known again by
        return None
