"""Whose turn it is, without any greenlet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.stepped_turns import Loop, Turns


def admitted(turns: Turns[Loop], count: int) -> list[Loop]:
    loops = [Loop(str(number)) for number in range(count)]
    for loop in loops:
        turns.admit(loop)
    return loops


def drawn(turns: Turns[Loop]) -> list[str]:
    names = []
    while (loop := turns.draw()) is not None:
        names.append(loop.name)
    return names


def order(seed: int) -> list[str]:
    turns: Turns[Loop] = Turns(seed)
    admitted(turns, 10)
    return drawn(turns)


@given(st.integers())
def test_a_seed_decides_the_order_and_everybody_has_a_turn(seed: int) -> None:
    assert order(seed) == order(seed)
    assert sorted(order(seed)) == [str(number) for number in range(10)]


def test_two_seeds_give_two_orders() -> None:
    assert len({tuple(order(seed)) for seed in range(20)}) == 20


def test_who_waits_has_no_turn_until_it_is_woken() -> None:
    turns: Turns[Loop] = Turns(0)
    [loop] = admitted(turns, 1)
    assert turns.draw() is loop
    turns.rest(loop, None)
    assert (turns.draw(), turns.next_due_ns()) == (None, None)
    turns.wake(loop)
    turns.wake(loop)
    assert drawn(turns) == ["0"]


def test_who_was_woken_is_not_woken_again_when_its_time_comes() -> None:
    turns: Turns[Loop] = Turns(0)
    [loop] = admitted(turns, 1)
    drawn(turns)
    turns.rest(loop, 100)
    turns.wake(loop)
    drawn(turns)
    turns.rest(loop, 200)
    turns.wake_due(150)
    assert turns.draw() is None
    assert turns.next_due_ns() == 200


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(0, 50))
def test_all_whose_time_has_come_can_go_on_and_nobody_else(due_ns: list[int], now_ns: int) -> None:
    turns: Turns[Loop] = Turns(0)
    loops = admitted(turns, len(due_ns))
    drawn(turns)
    for loop, each_ns in zip(loops, due_ns, strict=True):
        turns.rest(loop, each_ns)
    assert turns.next_due_ns() == min(due_ns)
    turns.wake_due(now_ns)
    assert sorted(map(int, drawn(turns))) == [n for n, each_ns in enumerate(due_ns) if each_ns <= now_ns]
    assert turns.next_due_ns() == min((each_ns for each_ns in due_ns if each_ns > now_ns), default=None)


def test_waits_that_ended_early_are_forgotten_and_the_others_are_not() -> None:
    turns: Turns[Loop] = Turns(0)
    sleeper, busy = admitted(turns, 2)
    drawn(turns)
    turns.rest(sleeper, 7)
    for _ in range(10_000):
        turns.rest(busy, 10**12)
        turns.wake(busy)
        turns.draw()
    assert len(turns._asleep) < 200
    assert turns.next_due_ns() == 7
