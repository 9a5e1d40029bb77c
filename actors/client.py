"""A consumer's side: ask, wait at most until the deadline, and always learn what became of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pykka
from loguru import logger

from actors.pending import Listener, Pending
from actors.routes import WITHIN_MS_MAX, Routes
from actors.supervised import refuse_to_block
from actors.thermal_feed import ThermalBroadcast, ThermalSubscription
from messages import NS_PER_MS, NS_PER_S, Infer, Outcome, Tensor, ThermalState, describe_error
from telemetry import ThermalSnapshot

CONSUMER_MAX_CHARS = 128
"""As long as a `messages.tensor.Name` may be."""


class InferenceClient:
    """Thread-safe; one per consumer. The consumer's name is in every message, recording and log line.

    Raises ValueError for a name that no recording takes: an empty one, or one of more than 128 characters.
    """

    def __init__(self, consumer: str, routes: Routes, snapshot: ThermalSnapshot, broadcast: ThermalBroadcast) -> None:
        check_consumer(consumer)
        self.consumer = consumer
        self._routes = routes
        self._now_ns = routes.clock.monotonic_ns
        self._snapshot = snapshot
        self._thermal_state = snapshot.peek
        self._broadcast = broadcast
        self._silent_urn = ""

    def infer(
        self, model: str, inputs: Mapping[str, Tensor], *, within_ms: float, frame_id: int = 0, captured_ns: int = 0
    ) -> Outcome:
        """Run `model` and wait for its outcome, at most `within_ms` milliseconds.

        Never raises for anything that happens to the request: that is what `InferRejected` says. Raises ValueError
        for a `within_ms` that is not between 0 and ten minutes, and BlockingCallError on the thread of one of our own
        actors, which uses `send`; a consumer's own pykka actor may wait if it likes.
        """
        refuse_to_block("infer()")
        pending = self._submit(model, inputs, self._deadline_ns(within_ms), frame_id, captured_ns)
        try:
            return pending.await_outcome()
        except BaseException:  # a Ctrl-C: nobody will see the outcome
            pending.cancel()
            raise

    def submit(
        self, model: str, inputs: Mapping[str, Tensor], *, within_ms: float, frame_id: int = 0, captured_ns: int = 0
    ) -> Pending:
        """Ask without waiting. The arrays belong to the runtime until the outcome is there; their dict does not."""
        return self._submit(model, inputs, self._deadline_ns(within_ms), frame_id, captured_ns)

    def infer_many(
        self,
        model: str,
        batch: Sequence[Mapping[str, Tensor]],
        *,
        within_ms: float,
        frame_id: int = 0,
        captured_ns: int = 0,
    ) -> list[Outcome]:
        """Ask for all of a frame's runs under one deadline; one outcome each, in the order of `batch`.

        Waits at most until that deadline. Raises as `infer` does.
        """
        refuse_to_block("infer_many()")
        deadline_ns = self._deadline_ns(within_ms)
        asked: list[Pending] = []
        try:
            for inputs in batch:
                asked.append(self._submit(model, inputs, deadline_ns, frame_id, captured_ns))  # noqa: PERF401
            return [each.await_outcome() for each in asked]
        except BaseException:  # a Ctrl-C, or inputs that are none: nobody will see the others' outcomes
            for each in asked:
                each.cancel()
            raise

    async def infer_async(
        self, model: str, inputs: Mapping[str, Tensor], *, within_ms: float, frame_id: int = 0, captured_ns: int = 0
    ) -> Outcome:
        """Run `model` and await its outcome, at most `within_ms` milliseconds; the event loop runs on meanwhile.

        A cancelled task cancels its request; an engine that had begun to read the arrays may read them until it
        returns. Raises ValueError as `infer` does.
        """
        loop = asyncio.get_running_loop()
        deadline_ns = self._deadline_ns(within_ms)
        answer: asyncio.Future[Outcome] = loop.create_future()

        def wake(outcome: Outcome) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits this any more
                loop.call_soon_threadsafe(_answer, answer, outcome)

        pending = self._submit(model, inputs, deadline_ns, frame_id, captured_ns, wake)
        deadline = loop.call_later((deadline_ns - self._now_ns()) / NS_PER_S, pending.expire)
        try:
            return await answer
        finally:
            deadline.cancel()
            pending.cancel()

    def send(
        self,
        model: str,
        inputs: Mapping[str, Tensor],
        *,
        within_ms: float,
        reply_to: pykka.ActorRef[Any],
        frame_id: int = 0,
        captured_ns: int = 0,
    ) -> int:
        """Have the outcome told to the actor `reply_to` as a message. Never blocks.

        Returns the outcome's `request_id`. That actor's mailbox must not block either: it is an engine's thread that
        tells it. Where it is dead or refuses the message, the outcome is counted as undelivered and the engine runs on;
        the first such outcome of each actor is logged. Raises ValueError as `infer` does.
        """
        tell = partial(self._tell, reply_to)
        return self._submit(model, inputs, self._deadline_ns(within_ms), frame_id, captured_ns, tell).request_id

    def thermal_state(self) -> ThermalState:
        """The newest sample. Never raises: without telemetry it says `source_lost` and no throttle."""
        return self._thermal_state()

    def thermal_feed(self) -> ThermalSubscription:
        """Subscribe to throttle transitions; close it, or use it in a `with` block."""
        return self._broadcast.subscribe()

    def _deadline_ns(self, within_ms: float) -> int:
        check_within_ms(within_ms)
        return self._now_ns() + int(within_ms * NS_PER_MS)

    def _tell(self, reply_to: pykka.ActorRef[Any], outcome: Outcome) -> None:
        try:
            reply_to.tell(outcome)
        except Exception as error:  # noqa: BLE001  # a consumer's mailbox; the thread is an engine's
            self._routes.ledger.count_undelivered(outcome)
            if self._silent_urn != reply_to.actor_urn:
                self._silent_urn = reply_to.actor_urn
                logger.warning(
                    "C7 outcome not delivered; consumer={} backbone={} actor={}; {}",
                    self.consumer,
                    outcome.model,
                    reply_to,
                    describe_error(error),
                )

    def _submit(
        self,
        model: str,
        inputs: Mapping[str, Tensor],
        deadline_ns: int,
        frame_id: int,
        captured_ns: int,
        listener: Listener | None = None,
    ) -> Pending:
        routes = self._routes
        return routes.submit(
            # In the order of the fields: naming them costs every request a tenth of a microsecond.
            Infer(model, dict(inputs), self.consumer, frame_id, deadline_ns, routes.next_request_id(), captured_ns),
            listener,
        )


def check_consumer(consumer: str) -> None:
    """Raises ValueError for a name that no recording takes."""
    if not 1 <= len(consumer) <= CONSUMER_MAX_CHARS:
        raise ValueError(f"consumer: expected a name of 1 to {CONSUMER_MAX_CHARS} characters, found {consumer!r:.80}")


def check_within_ms(within_ms: float) -> None:
    """Raises ValueError for a duration that nothing can be done in, or that is longer than any wait."""
    if not 0.0 < within_ms <= WITHIN_MS_MAX:
        raise ValueError(f"within_ms must be above 0 and at most {WITHIN_MS_MAX:g}, got {within_ms!r}")


def _answer(answer: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not answer.done():  # its task was cancelled while the outcome was on its way
        answer.set_result(outcome)
