"""The `InferenceRuntime` interface over the supervisor: what is written against the interface runs on the actors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from actors.client import InferenceClient
from actors.engine_loader import EngineLoader
from actors.frame_scope import current_frame
from actors.routes import Routes
from actors.supervised import refuse_to_block
from messages import (
    NS_PER_MS,
    EngineBuildError,
    Infer,
    InferCompleted,
    InferenceError,
    InferRejected,
    InvalidInputError,
    Outcome,
    OutOfMemoryError,
    RejectReason,
    RequestRejectedError,
    Tensor,
    ThermalState,
)
from runtimes import BuildConfig, EngineCacheEntry, EngineHandle
from runtimes.resident_engines import ResidentEngines, refuse_to_compile

WITHIN_MS = 1_000.0
CONSUMER = "main"
"""Whose a call is that no `frame_scope` is around."""

Clients = Callable[[str], InferenceClient]
CompileEngine = Callable[[Path, BuildConfig], EngineCacheEntry]


class SupervisedHandle:
    """An engine of a SupervisedRuntime: which one it is, and nothing that runs. It stays good when the engine dies."""

    def __init__(self, entry: EngineCacheEntry) -> None:
        self.entry = entry


class SupervisedRuntime:
    """One runtime for every component of a process; made by `Supervision.as_runtime`. Thread-safe, one handle too.

    `within_ms` bounds a call that no `frame_scope` is around. The calls that wait raise BlockingCallError on the thread
    of one of our own actors. It refers to nothing that refers to the strategy: `compile_engine` is a weak reference.
    """

    def __init__(
        self,
        clients: Clients,
        routes: Routes,
        loader: EngineLoader,
        compile_engine: Callable[[], CompileEngine | None],
        label: str,
        within_ms: float = WITHIN_MS,
    ) -> None:
        self._clients = clients
        self._thermal_state = clients(CONSUMER).thermal_state
        self._routes = routes
        self._loader = loader
        self._compile_engine = compile_engine
        self._label = label
        self._within_ns = round(within_ms * NS_PER_MS)
        self._resident: ResidentEngines[SupervisedHandle] = ResidentEngines()

    def compile_engine(self, model_path: Path, build_config: BuildConfig) -> EngineCacheEntry:
        """As the strategy below, on the caller's thread. An engine that restarts counts as loaded."""
        refuse_to_block("compile_engine()")
        refuse_to_compile(model_path, self._loader.models())
        compile_engine = self._compile_engine()
        if compile_engine is None:
            raise EngineBuildError(f"{model_path}: expected a runtime that flies, found one that was stopped")
        return compile_engine(model_path, build_config)

    def deserialize_engine(self, entry: EngineCacheEntry) -> EngineHandle:
        """Start the engine's actor and wait until it is loaded and tested; share the one that is there already.

        An engine of the flight plan is not waited for: in a recovery it answers as it comes back. Raises as every
        runtime, and EngineDeserializeError for another engine of a model that is loaded.
        """
        refuse_to_block("deserialize_engine()")
        self._loader.hold(entry)
        return self._resident.admit(SupervisedHandle(entry))

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Post the request to the engine's actor and wait for its outcome, at most until the deadline of `frame_scope`.

        Raises the error that the outcome stands for: InvalidInputError, OutOfMemoryError, InferenceError of the run,
        RequestRejectedError for every other reason. A handle raises while its engine restarts, then works again.
        """
        refuse_to_block("infer()")
        model = self._resident.require(handle).entry.model
        outcome = self._ask(model, inputs)
        if isinstance(outcome, InferCompleted):
            return outcome.outputs
        raise error_of(outcome)

    def release_engine(self, handle: EngineHandle) -> None:
        """Stop the engine's actor once nobody else holds the engine, and wait until it has let go, bounded.

        An engine of the flight plan flies on. Requests of others that still wait are rejected.
        """
        refuse_to_block("release_engine()")
        dismissed = self._resident.dismiss(handle)
        if dismissed is not None:
            self._loader.let_go(dismissed.entry.model)

    def thermal_state(self) -> ThermalState:
        """The newest sample. Never raises: without telemetry it says `source_lost`, no throttle, and NaN for what was
        not read.
        """
        return self._thermal_state()

    def current_runtime_label(self) -> str:
        return self._label

    def client(self, consumer: str) -> InferenceClient:
        """The same actors without handles, for a consumer that wants outcomes, batches, awaits or messages."""
        return self._clients(consumer)

    def _ask(self, model: str, inputs: Mapping[str, Tensor]) -> Outcome:
        routes, scope = self._routes, current_frame()
        request_id = routes.next_request_id()
        if scope is None:
            deadline_ns = routes.clock.monotonic_ns() + self._within_ns
            pending = routes.submit(Infer(model, dict(inputs), CONSUMER, 0, deadline_ns, request_id))
        else:
            consumer, frame_id, deadline_ns, captured_ns = scope
            pending = routes.submit_made(  # a scope on another clock has any deadline
                Infer(model, dict(inputs), consumer, frame_id, deadline_ns, request_id, captured_ns)
            )
        try:
            return pending.await_outcome()
        except BaseException:  # a Ctrl-C: nobody will see the outcome
            pending.cancel()
            raise


def error_of(rejected: InferRejected) -> InferenceError | OutOfMemoryError:
    """The error that a rejection stands for where a runtime's caller expects one."""
    kind = _RUN_ERRORS.get(rejected.reason)
    if kind is not None:
        return kind(rejected.detail)
    detail = f": {rejected.detail}" if rejected.detail else ""
    return RequestRejectedError(
        rejected.reason,
        f"{rejected.model} gave no result, {rejected.reason}{detail}; consumer={rejected.consumer}"
        f" frame={rejected.frame_id}",
        detail=rejected.detail,
        inputs_released=rejected.inputs_released,
    )


_RUN_ERRORS: Mapping[RejectReason, type[InferenceError] | type[OutOfMemoryError]] = {
    "invalid_input": InvalidInputError,
    "inference_error": InferenceError,
    "out_of_memory": OutOfMemoryError,
}
