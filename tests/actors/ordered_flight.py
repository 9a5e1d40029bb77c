"""A stepped flight whose supervisor is given orders directly: engines come and go, and the test waits for none."""

from __future__ import annotations

import numpy as np

from actors import Pending, RestartPolicy
from actors.engine_orders import LoadEngine, ReleaseEngine, Reply
from actors.launch import EngineSpec
from actors.stepped import SteppedWorld, stepped
from messages import (
    NS_PER_MS,
    NS_PER_S,
    EngineLoaded,
    FaultClass,
    InferenceError,
    InferRejected,
    Outcome,
)
from runtimes import EngineCacheEntry, FakeRuntime, raises, returns
from runtimes.fake_steps import Step

IMAGE = {"image": np.ones(4, np.float32)}
FINE = returns({"y": np.ones(4, np.float32)})
DIES = raises(InferenceError("716"))
LOAD_TIMEOUT_S = 3.0
RUN_LIMIT_MS = 1000.0
POLICY = RestartPolicy(
    max_restarts=3,
    window_ns=60 * NS_PER_S,
    first_delay_ns=100 * NS_PER_MS,
    jitter_share=0.0,
    probation_after_ns=60 * NS_PER_S,
)


class Flight:
    """A stepped world whose supervisor is given orders directly, by a test that does not wait for them."""

    def __init__(self, fake: FakeRuntime, *flight: str, **options: object) -> None:
        self.fake = fake
        self.world: SteppedWorld = stepped(
            fake,
            engines={model: fake.entry(model) for model in flight},
            policy=POLICY,
            load_timeout_s=LOAD_TIMEOUT_S,
            run_limit_ms=RUN_LIMIT_MS,
            **options,  # type: ignore[arg-type]
        )

    def __enter__(self) -> Flight:
        return self

    def __exit__(self, *_: object) -> None:
        self.world.close()

    def load(self, model: str, priority: int = 100, entry: EngineCacheEntry | None = None) -> Reply:
        reply = Reply(self.world._scheduling)
        spec = EngineSpec(
            model=model,
            entry=entry or self.fake.entry(model),
            priority=priority,
            run_limit_ns=round(RUN_LIMIT_MS * NS_PER_MS),
        )
        self.world.supervision.actor_ref.tell(LoadEngine(spec, reply))
        return reply

    def loaded(self, *models: str) -> None:
        for model in models:
            assert self.answer(self.load(model)) is None

    def release(self, model: str) -> Reply:
        reply = Reply(self.world._scheduling)
        self.world.supervision.actor_ref.tell(ReleaseEngine(model, reply))
        return reply

    def answer(self, reply: Reply, within_ms: float = 0.0) -> FaultClass | None:
        """The fault that an order ended with, None where it was carried out. Fails where there is no answer yet."""
        self.world.advance_ms(within_ms)
        assert reply._answered, "expected an answer"
        return None if reply.failure is None else reply.failure.fault

    def detail(self, reply: Reply) -> str:
        assert reply.failure is not None
        return reply.failure.detail

    def ask(self, model: str, within_ms: float = 500.0) -> Outcome:
        return self.world.client.infer(model, IMAGE, within_ms=within_ms)

    def submit(self, model: str, within_ms: float = 2000.0, frame_id: int = 0) -> Pending:
        return self.world.client.submit(model, IMAGE, within_ms=within_ms, frame_id=frame_id)

    def facts(self, kind: type[EngineLoaded]) -> list[str]:
        return [message.model for message in self.world.messages if isinstance(message, kind)]

    def is_gone(self, model: str) -> bool:
        return model not in self.fake.loaded and reason(self.ask(model)) == "unknown_model"

    def slots(self) -> dict[str, str]:
        supervisor = self.world.supervision.actor_ref._actor_weakref()
        assert supervisor is not None
        return {model: slot.state for model, slot in supervisor._slots.items()}

    @property
    def timers(self) -> int:
        timers: int = self.world.supervision._timers.waiting  # type: ignore[attr-defined]
        return timers


def reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


def fake_of(**scripts: Step | list[Step]) -> FakeRuntime:
    return FakeRuntime(scripts)
