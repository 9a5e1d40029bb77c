"""`stepped(...)`: the actors of a flight in a test, without threads, on a clock that moves only when everybody waits.

    fake = FakeRuntime({"lightglue": [returns(MATCHES), raises(InferenceError("716")), returns(MATCHES)]})
    with stepped(fake, seed=7) as world:
        assert Matcher(world.client).match(frame).ok

The actors are those that fly; only threads and time are replaced. Needs the extra `testing`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, TypeVar

import pykka

from actors.client import InferenceClient
from actors.launch import RUN_LIMIT_NS
from actors.ledger import ModelStatistics, ModelTally
from actors.restart import RestartPolicy
from actors.routes import WITHIN_MS_MAX
from actors.stepped_actor import stepped_class
from actors.stepped_event_loop import run_stepped
from actors.stepped_scheduling import SteppedScheduling
from actors.supervision import Supervision
from actors.supervisor import Mode
from actors.takeoff import LOAD_TIMEOUT_S, Stage, supervise
from actors.timers import TimerThread
from messages import NS_PER_MS, NS_PER_S, Message, VirtualClock
from runtimes import EngineCacheEntry, FakeRuntime, InferenceRuntime
from runtimes.available_memory import AvailableMemory
from telemetry import ReplayThermalSource, ThermalSource

MESSAGES_KEPT = 10_000

ActorT = TypeVar("ActorT", bound=pykka.ThreadingActor)
ResultT = TypeVar("ResultT")


class SteppedWorld:
    """Engines under supervision whose every wait is somebody else's turn. For one test, on one thread.

    Time passes where the test waits: for an outcome, and in `advance_ms`.
    """

    def __init__(
        self,
        supervision: Supervision,
        scheduling: SteppedScheduling,
        clock: VirtualClock,
        messages: deque[Message],
        undo: ExitStack,
    ) -> None:
        self.supervision = supervision
        self.clock = clock
        self.client: InferenceClient = supervision
        self._scheduling = scheduling
        self._messages = messages
        self._actors: list[pykka.ActorRef[Any]] = []
        self._undo = undo
        undo.callback(self._stop_actors)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Every request, outcome and fact, oldest first; the newest MESSAGES_KEPT of them."""
        return tuple(self._messages)

    def consumer(self, name: str) -> InferenceClient:
        """A client in this consumer's name."""
        return self.supervision.client(name)

    def start(self, kind: type[ActorT], *args: object, **kwargs: object) -> pykka.ActorRef[ActorT]:
        """Start a consumer's own pykka actor here, as `kind.start(...)` does on a thread. It stops with the world.

        A SystemExit in it ends this actor only; on threads pykka stops every actor of the process.
        """
        ref: pykka.ActorRef[ActorT] = stepped_class(kind, self._scheduling).start(*args, **kwargs)
        self._actors.append(ref)
        return ref

    def advance_ms(self, duration_ms: float) -> None:
        """Let everything happen that is due within this time, in order. The clock is then exactly that much later.

        Raises ValueError for a negative duration.
        """
        if duration_ms < 0:
            raise ValueError(f"duration_ms must be >= 0, got {duration_ms}")
        self._scheduling.run_until(self.clock.monotonic_ns() + round(duration_ms * NS_PER_MS))

    def run_until_idle(self) -> None:
        """Let everything happen that can happen now. The clock stays."""
        self._scheduling.run_until(self.clock.monotonic_ns())

    def run(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        """As `asyncio.run`, in this world's time: for consumers that `await client.infer_async(...)`."""
        return run_stepped(coroutine, self._scheduling, self.clock)

    def tallies(self) -> dict[str, ModelTally]:
        """As `Supervision.tallies`."""
        return self.supervision.tallies()

    def statistics(self) -> dict[str, ModelStatistics]:
        """As `Supervision.statistics`."""
        return self.supervision.statistics()

    def close(self) -> None:
        """Stop the consumers' actors, then the engines, as in flight; what hangs is ended. A second call does nothing.

        Raises SteppedWorldError where something does not end.
        """
        self._undo.close()

    def __enter__(self) -> SteppedWorld:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stop_actors(self) -> None:
        for answer in [ref.stop(block=False) for ref in self._actors]:
            with suppress(pykka.Timeout):  # it waits for something else than an outcome: the end of the world ends it
                answer.get(timeout=WITHIN_MS_MAX * NS_PER_MS / NS_PER_S)


def stepped(
    runtime: InferenceRuntime,
    *,
    seed: int = 0,
    engines: Mapping[str, EngineCacheEntry] | None = None,
    mode: Mode = "takeoff",
    priorities: Mapping[str, int] | None = None,
    self_test_tolerances: Mapping[str, float] | None = None,
    thermal: Path | ThermalSource | None = None,
    period_s: float = 1.0,
    load_timeout_s: float = LOAD_TIMEOUT_S,
    run_limit_ms: float = RUN_LIMIT_NS / NS_PER_MS,
    runs_at_once: int = 1,
    policy: RestartPolicy | None = None,
    available_memory: Callable[[], AvailableMemory] | None = None,
    on_restart_needed: Callable[[str], None] | None = None,
    record: Callable[[Message], None] | None = None,
    clock: VirtualClock | None = None,
) -> SteppedWorld:
    """As `supervise`, without threads and on virtual time. Whose turn it is where several can go on, `seed` decides.

    `engines` are by default all that a FakeRuntime has scripts for; none, `{}`, where all of them come later, through
    `world.supervision.as_runtime()`. While the world lives, the steps of a FakeRuntime
    take their time in it: a run of 30 ms ends 30 ms later, and others go on meanwhile. Another runtime's runs take no
    time at all. `thermal` is a trace to be replayed on the world's clock, or a source of one's own. `clock` is given
    where something was made with it before; only the world moves it.

    Raises as `supervise` does, and ValueError where `engines` is left out for a runtime that has no scripts.
    """
    if isinstance(thermal, str):
        raise TypeError(f"thermal: expected the Path of a trace, a source or None, found the text {thermal!r}")
    clock = clock or VirtualClock()
    scheduling = SteppedScheduling(clock, seed)
    messages: deque[Message] = deque(maxlen=MESSAGES_KEPT)
    ended: list[None] = []

    def keep(message: Message) -> None:
        if ended:
            return
        messages.append(message)
        if record is not None:
            record(message)

    with ExitStack() as undo:
        undo.callback(scheduling.end)
        if isinstance(runtime, FakeRuntime):
            undo.callback(setattr, runtime.stage, "waits", runtime.stage.waits)
            runtime.stage.waits = scheduling
            engines = runtime.entries() if engines is None else engines
        if engines is None:
            raise ValueError("expected `engines` for a runtime that is no FakeRuntime, found none")
        undo.callback(ended.append, None)
        supervision = supervise(
            runtime,
            engines or None,
            priorities=priorities,
            self_test_tolerances=self_test_tolerances,
            mode=mode,
            thermal=ReplayThermalSource(thermal, clock) if isinstance(thermal, Path) else thermal,
            period_s=period_s,
            load_timeout_s=load_timeout_s,
            policy=policy,
            record=keep,
            clock=clock,
            run_limit_ms=run_limit_ms,
            runs_at_once=runs_at_once,
            available_memory=available_memory,
            on_restart_needed=on_restart_needed,
            stage=Stage(scheduling, lambda clock: TimerThread(clock, scheduling), Random(seed).random),  # noqa: S311
        )
        undo.callback(supervision.stop)
        return SteppedWorld(supervision, scheduling, clock, messages, undo.pop_all())
