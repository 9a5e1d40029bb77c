"""Requests that kill an engine: who is suspected, when it is proven, and when it is tried again."""

from __future__ import annotations

import numpy as np

from actors.poison import DEATHS, HOLD_MAX_NS, HOLD_NS, SUSPECTS_MAX, PoisonWatch, Suspect, hold_ns, suspect_of
from messages import Infer, TensorSpec


def inputs_of(consumer: str, width: int = 4, name: str = "image") -> Suspect:
    return suspect_of(Infer("vpr", {name: np.ones(width, np.float32)}, consumer, 1, 2, 3))


def proven(suspect: Suspect, at_ns: int = 0) -> PoisonWatch:
    watch = PoisonWatch()
    for _ in range(DEATHS):
        watch.blame(suspect, at_ns, proven=True)
    return watch


def test_one_death_is_a_suspicion_and_a_second_one_on_the_same_inputs_is_poison() -> None:
    watch = PoisonWatch()
    assert not watch
    assert not watch.blame(inputs_of("c2"), 0, proven=True)
    assert watch
    assert not watch.is_poison(inputs_of("c2"), 1)
    assert watch.blame(inputs_of("c2"), 2, proven=True)
    assert watch.is_poison(inputs_of("c2"), 3)


def test_deaths_of_an_engine_that_never_proved_itself_are_its_own() -> None:
    watch = PoisonWatch()
    assert not any(watch.blame(inputs_of("c2"), at_ns, proven=False) for at_ns in range(9))
    assert watch.blame(inputs_of("c2"), 9, proven=True)


def test_another_consumer_and_another_signature_are_not_to_blame() -> None:
    watch = proven(inputs_of("c2"))
    for other in (inputs_of("c3"), inputs_of("c2", width=5), inputs_of("c2", name="picture")):
        assert not watch.is_poison(other, 1)
        assert not watch.blame(other, 1, proven=True), "their first death"


def test_a_run_that_went_well_clears_the_suspicion() -> None:
    watch = PoisonWatch()
    watch.blame(inputs_of("c2"), 0, proven=True)
    watch.absolve(inputs_of("c2"))
    assert not watch
    assert not watch.blame(inputs_of("c2"), 1, proven=True)


def test_poison_is_tried_again_after_a_hold_that_doubles_with_each_death_up_to_the_cap() -> None:
    suspect = inputs_of("c2")
    watch, now_ns = proven(suspect), 0
    for deaths in range(DEATHS, DEATHS + 6):
        assert watch.is_poison(suspect, now_ns + hold_ns(deaths))
        now_ns += hold_ns(deaths) + 1
        assert not watch.is_poison(suspect, now_ns)
        assert watch.blame(suspect, now_ns, proven=True), "it needs no second proof"
    assert [hold_ns(deaths) // HOLD_NS for deaths in range(DEATHS, DEATHS + 6)] == [1, 2, 4, 8, 8, 8]


def test_a_suspect_that_is_not_heard_of_is_forgotten() -> None:
    watch = proven(inputs_of("c2"))
    assert not watch.is_poison(inputs_of("c3"), 2 * HOLD_MAX_NS + 1)
    assert not watch


def test_a_flood_of_signatures_does_not_grow_the_list() -> None:
    watch = proven(inputs_of("c2"))
    for width in range(10, 10 + SUSPECTS_MAX):
        watch.blame(inputs_of("flood", width), 1, proven=True)
    assert len(watch._suspicions) == SUSPECTS_MAX
    assert not watch.is_poison(inputs_of("c2"), 1), "the oldest suspicion went"


def test_a_suspect_says_who_sent_what() -> None:
    assert inputs_of("c2").signature == (("image", TensorSpec((4,), "float32")),)
    assert str(inputs_of("c2")) == "c2's inputs (image float32[4])"
