"""The running actors: what `supervise(...)` returns, a client of them, and their one end."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakMethod

import pykka
from loguru import logger

from actors.client import InferenceClient, check_within_ms
from actors.engine_loader import EngineLoader
from actors.ledger import ModelStatistics, ModelTally
from actors.readiness import Readiness
from actors.routes import Routes
from actors.supervised import await_end
from actors.supervised_runtime import WITHIN_MS, SupervisedRuntime
from actors.supervisor import STOP_TIMEOUT_S, RuntimeSupervisor
from actors.thermal import ThermalActor
from actors.thermal_feed import ThermalBroadcast
from actors.timers import Timers
from runtimes import BuildConfig, EngineCacheEntry, InferenceRuntime
from telemetry import ThermalSnapshot


class RestartNeed:
    """Why only another process can run engines again; empty while this one can. Said once, by the supervisor."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        self.reason = ""
        self._tell = tell

    def say(self, reason: str) -> None:
        if not self.reason:
            self.reason = reason
            if self._tell is not None:
                self._tell(reason)


class Supervision(InferenceClient):
    """The running actors, and a client of them. Ends with `stop()`, the `with` block, or the interpreter."""

    def __init__(
        self,
        supervisor: pykka.ActorRef[RuntimeSupervisor],
        thermal: pykka.ActorRef[ThermalActor] | None,
        routes: Routes,
        snapshot: ThermalSnapshot,
        broadcast: ThermalBroadcast,
        timers: Timers,
        readiness: Readiness,
        restart_need: RestartNeed,
        strategy: InferenceRuntime,
        loader: EngineLoader,
    ) -> None:
        super().__init__("main", routes, snapshot, broadcast)
        self.readiness = readiness
        self._supervisor = supervisor
        self._thermal = thermal
        self._timers = timers
        self._restart_need = restart_need
        self._strategy = strategy
        self._label = strategy.current_runtime_label()
        self._loader = loader
        atexit.register(self.stop)

    @property
    def actor_ref(self) -> pykka.ActorRef[RuntimeSupervisor]:
        """The supervisor, for actors that send it `Infer` messages themselves: `ask` gives a `Pending`.

        A `request_id` of 0 is replaced by one that is unique.
        """
        return self._supervisor

    @property
    def restart_needed(self) -> str:
        """Why only a new process can run engines again; empty while this one can."""
        return self._restart_need.reason

    def client(self, consumer: str) -> InferenceClient:
        """A client in this consumer's name. Raises ValueError for one that is empty or has more than 128 characters."""
        return InferenceClient(consumer, self._routes, self._snapshot, self._broadcast)

    def as_runtime(self, *, within_ms: float = WITHIN_MS) -> SupervisedRuntime:
        """These actors behind the `InferenceRuntime` interface. `within_ms` bounds a call without a `frame_scope`."""
        check_within_ms(within_ms)
        return SupervisedRuntime(
            partial(InferenceClient, routes=self._routes, snapshot=self._snapshot, broadcast=self._broadcast),
            self._routes,
            self._loader,
            WeakMethod(self._compile_engine),
            self._label,
            within_ms,
        )

    def _compile_engine(self, model_path: Path, build_config: BuildConfig) -> EngineCacheEntry:
        return self._strategy.compile_engine(model_path, build_config)

    def tallies(self) -> dict[str, ModelTally]:
        """Counts per model, consistent at one instant."""
        return self._routes.ledger.tallies()

    def statistics(self) -> dict[str, ModelStatistics]:
        """Per model: counts by outcome, queue and run times, generation and restarts, consistent at one instant."""
        return self._routes.ledger.statistics()

    def is_alive(self) -> bool:
        """Whether the supervisor lives. It is never restarted: where it died, the process should end."""
        return self._supervisor.is_alive()

    def stop(self) -> None:
        """Refuse what is queued, let running requests end, release the engines, and wait for all that.

        Bounded: some four seconds where an engine and the thermal source both hang. From any thread, any number of
        times; every call waits. On an actor's own thread (from `record`) it does not wait for that actor.
        """
        self._timers.close()
        try:
            stop_all(self._supervisor, *([] if self._thermal is None else [self._thermal]))
        finally:
            self._broadcast.close()
        # Last, so that an interpreter that ends meanwhile waits for this as well.
        atexit.unregister(self.stop)

    def __enter__(self) -> Supervision:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def stop_all(*refs: pykka.ActorRef[Any]) -> None:
    """Stop these actors together and wait for each, bounded."""
    for ref in refs:
        ref.stop(block=False)
    for ref in refs:
        if not await_end(ref, 2 * STOP_TIMEOUT_S):
            logger.error("C7 {} did not stop within {} s", ref.actor_class.__name__, 2 * STOP_TIMEOUT_S)
