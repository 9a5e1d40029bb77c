"""An actor's end: alone, with its cause, and once."""

from __future__ import annotations

import threading

import pykka
import pytest

from actors.supervised import SupervisedActor, await_end

WAIT_S = 20.0


class Fails(SupervisedActor):
    """Raises what it is told, and says what it left of."""

    def __init__(self, left: list[str], at_start: BaseException | None = None) -> None:
        super().__init__()
        self.left = left
        self.at_start = at_start

    def open(self) -> None:
        if self.at_start is not None:
            raise self.at_start

    def handle(self, message: object) -> object:
        if isinstance(message, BaseException):
            raise message
        return message

    def leave(self, cause: str) -> None:
        self.left.append(cause)


ENDS = pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()], ids=repr)


@ENDS
def test_an_actor_whose_handler_fails_ends_alone_with_its_cause_and_once(error: BaseException) -> None:
    left: list[str] = []
    bystander, failing = Fails.start([]), Fails.start(left)
    failing.tell(error)
    assert await_end(failing, WAIT_S)
    assert left == [f"{type(error).__name__}: {error}"]
    assert bystander.ask("still there", timeout=WAIT_S) == "still there"
    bystander.stop(block=False)
    assert await_end(bystander, WAIT_S)


@ENDS
def test_an_actor_that_fails_to_start_ends_with_its_cause_and_is_not_taken_for_alive(error: BaseException) -> None:
    left: list[str] = []
    failing = Fails.start(left, error)
    assert await_end(failing, WAIT_S)
    assert left == [f"{type(error).__name__}: {error}"]
    assert not failing.is_alive()
    assert failing not in pykka.ActorRegistry.get_all()


def test_an_actor_that_is_ended_while_it_works_answers_what_it_was_asked_meanwhile() -> None:
    works, go = threading.Event(), threading.Event()

    class Works(SupervisedActor):
        def handle(self, message: object) -> None:
            works.set()
            assert go.wait(WAIT_S)
            raise ValueError(message)

    ref = Works.start()
    ref.tell("dies of this")
    assert works.wait(WAIT_S)
    meanwhile = ref.ask("too late", block=False)
    go.set()
    with pytest.raises(pykka.ActorDeadError):
        meanwhile.get(timeout=WAIT_S)
