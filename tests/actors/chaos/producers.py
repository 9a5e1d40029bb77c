"""Impatient consumers: they ask in every way that a client has, more than the engines can do, and account for it."""

from __future__ import annotations

import asyncio
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pykka

from actors import Pending, Supervision
from messages import NS_PER_S, InferCompleted, InferRejected, Outcome
from tests.actors.chaos.account import Account
from tests.actors.chaos.questions import PADDINGS, done_at_ns, question, within_ms, within_ns

BURST = 13
"""Matches of one frame."""
OPEN_MAX = 100
"""Of its own submitted requests that a producer has not looked at yet."""
TOLD_MAX = 300
"""Outcomes that an actor is told before it dies."""
JOIN_S = 60.0


class CountingInbox(queue.Queue[Any]):
    """Counts an outcome when it is put: whatever becomes of its actor then, it has arrived."""

    def __init__(self, consumer: str, account: Account) -> None:
        super().__init__()
        self._consumer = consumer
        self._account = account
        self.count = 0

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if isinstance(item.message, (InferCompleted, InferRejected)):
            self.count += 1
            self._account.receive(self._consumer, item.message)
        super().put(item, block, timeout)


class Receiver(pykka.ThreadingActor):
    """A consumer that is an actor itself."""

    use_daemon_thread = True

    def __init__(self, inbox: CountingInbox) -> None:
        super().__init__()
        self.actor_inbox = inbox
        self.actor_ref.actor_inbox = inbox

    def on_receive(self, message: Any) -> None:
        """It has been counted."""


class Producer:
    """One consumer on its own thread. `strangers` are requests of all: one cancels what another one waits for."""

    def __init__(
        self,
        number: int,
        c7: Supervision,
        models: Sequence[str],
        account: Account,
        seed: str,
        strangers: deque[Pending],
    ) -> None:
        self.name = f"c{number}"
        self.asked = 0
        self._client = c7.client(self.name)
        self._models = models
        self._account = account
        self._choose = random.Random(f"{seed}/producer {number}")
        self._strangers = strangers
        self._open: deque[tuple[Pending, str]] = deque()
        self._frame_id = 0
        self._loop = asyncio.new_event_loop()
        self._inbox = CountingInbox(self.name, account)
        self._receiver = Receiver.start(self._inbox)
        self._ways = (self._infer, self._infer_many, self._infer_async, *[self._send] * 3, *[self._submit] * 6)

    def produce(self, go_on: Callable[[], bool], per_s: float) -> None:
        """Ask at this rate, as far as the waits allow it: what was missed by waiting is made up for."""
        began_ns = time.monotonic_ns()
        while go_on():
            self._frame_id += 1
            self._choose.choice(self._ways)(self._choose.choice(self._models))
            ahead_s = self.asked / per_s - (time.monotonic_ns() - began_ns) / NS_PER_S
            if ahead_s > 0:
                time.sleep(ahead_s)

    def end(self) -> None:
        """Look at everything that is still open. Bounded by the deadlines."""
        self._look_at(0)
        self._loop.close()
        self._receiver.stop(block=False)

    def _infer(self, model: str) -> None:
        self._ask(model)
        asked_ns = time.monotonic_ns()
        outcome = self._client.infer(
            model, self._question(), within_ms=within_ms(self._frame_id), frame_id=self._frame_id
        )
        self._account.waited(outcome, asked_ns + within_ns(self._frame_id))
        self._tell(model, outcome)

    def _infer_many(self, model: str) -> None:
        batch = [self._question() for _ in range(self._choose.randint(1, BURST))]
        for _ in batch:
            self._ask(model)
        asked_ns = time.monotonic_ns()
        outcomes = self._client.infer_many(model, batch, within_ms=within_ms(self._frame_id), frame_id=self._frame_id)
        for outcome in outcomes:
            self._account.waited(outcome, asked_ns + within_ns(self._frame_id))
            self._tell(model, outcome)

    def _infer_async(self, model: str) -> None:
        self._loop.run_until_complete(self._await_many(model, self._choose.randint(1, BURST)))

    async def _await_many(self, model: str, count: int) -> None:
        tasks = [asyncio.ensure_future(self._await_one(model)) for _ in range(count)]
        await asyncio.sleep(0)
        for task in tasks:
            if self._choose.random() < 0.2:
                task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _await_one(self, model: str) -> None:
        self._ask(model)
        try:
            outcome = await self._client.infer_async(
                model, self._question(), within_ms=within_ms(self._frame_id), frame_id=self._frame_id
            )
        except asyncio.CancelledError:
            self._account.give_up(model)
            raise
        self._tell(model, outcome)

    def _send(self, model: str) -> None:
        if not self._receiver.is_alive():
            self._inbox = CountingInbox(self.name, self._account)
            self._receiver = Receiver.start(self._inbox)
        for _ in range(BURST):
            self._account.ask(model, send=True)
            self.asked += 1
            self._client.send(
                model,
                self._question(),
                within_ms=within_ms(self._frame_id),
                reply_to=self._receiver,
                frame_id=self._frame_id,
            )
        if self._inbox.count > TOLD_MAX:
            self._receiver.stop(block=False)

    def _submit(self, model: str) -> None:
        """A frame's requests: some are cancelled at once, some by a stranger, and some nobody ever waits for."""
        for _ in range(BURST):
            self._ask(model)
            pending = self._client.submit(
                model, self._question(), within_ms=within_ms(self._frame_id), frame_id=self._frame_id
            )
            chance = self._choose.random()
            if chance < 0.4:
                pending.listen(self._listener(model, pending))
            else:
                self._open.append((pending, model))
            if chance < 0.1 or chance > 0.9:
                pending.cancel()
            elif 0.3 < chance < 0.5:
                self._strangers.append(pending)
        self._cancel_a_stranger()
        self._look_at(OPEN_MAX)

    def _cancel_a_stranger(self) -> None:
        """The newest one that has no outcome yet: it waits, or it is being run."""
        try:
            while (stranger := self._strangers.pop()).done:
                continue
        except IndexError:
            return
        stranger.cancel()

    def _listener(self, model: str, pending: Pending) -> Callable[[Outcome], None]:
        frame_id, deadline_ns = self._frame_id, pending.deadline_ns

        def hear(outcome: Outcome) -> None:
            self._account.heard(outcome, deadline_ns)
            self._account.tell(self.name, model, frame_id, outcome)
            self._check(outcome, pending.request_id, deadline_ns)

        return hear

    def _look_at(self, left: int) -> None:
        while len(self._open) > left:
            pending, model = self._open.popleft()
            was_done = pending.done
            outcome = pending.result()
            if not was_done:
                self._account.waited(outcome, pending.deadline_ns)
            self._account.tell(self.name, model, pending.frame_id, outcome)
            self._check(outcome, pending.request_id, pending.deadline_ns)
            if pending.result() is not outcome or pending.cancel():
                self._account.protest(f"the outcome of request {pending.request_id} changed after it was told")

    def _check(self, outcome: Outcome, request_id: int, deadline_ns: int) -> None:
        """By the engine's own clock, not by the runtime's durations."""
        if outcome.request_id != request_id:
            self._account.protest(f"request {request_id} was told the outcome of {outcome.request_id}")
        if isinstance(outcome, InferCompleted) and done_at_ns(outcome) > deadline_ns:
            self._account.protest(f"late result: the engine was done after the deadline of {outcome}")

    def _ask(self, model: str) -> None:
        self._account.ask(model)
        self.asked += 1

    def _question(self) -> dict[str, Any]:
        return question(self.name, self._frame_id, self._choose.randrange(PADDINGS))

    def _tell(self, model: str, outcome: Outcome) -> None:
        self._account.tell(self.name, model, self._frame_id, outcome)


class Crew:
    """Producers on their threads. What one of them raises is kept and ends all."""

    def __init__(self, c7: Supervision, count: int, models: Sequence[str], account: Account, seed: str) -> None:
        strangers: deque[Pending] = deque(maxlen=64)
        self._producers = [Producer(number, c7, models, account, seed, strangers) for number in range(count)]
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def start(self, go_on: Callable[[], bool], per_s: float) -> None:
        """All of them together ask at this rate, until `go_on` says no."""

        def work(producer: Producer) -> None:
            try:
                producer.produce(lambda: go_on() and not self.errors, per_s / len(self._producers))
                producer.end()
            except BaseException as error:  # noqa: BLE001  # told by the test's own thread
                self.errors.append(error)

        for producer in self._producers:
            self._threads.append(threading.Thread(target=work, args=(producer,), name=producer.name, daemon=True))
            self._threads[-1].start()

    def join(self) -> None:
        """Every producer comes back, whatever became of the engines. Raises what one of them raised."""
        for thread in self._threads:
            thread.join(JOIN_S)
        if self.errors:
            raise self.errors[0]
        assert [thread.name for thread in self._threads if thread.is_alive()] == [], "producers hang"
