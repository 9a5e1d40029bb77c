"""Classes that a plan names are found, fitted and constructed, or refused by the plan's own key."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from actors.consumer import Frame, build_consumers, build_source, load_class
from messages import ConfigError
from runtimes.flight_plan import ConsumerSection, FramesSection

MODULE = """
class Source:
    def __init__(self, step: int = 1) -> None:
        self.step = step
    def read(self, frame_id):
        return frame_id * self.step

class Looker:
    def __init__(self, client, *, threshold: float = 0.5) -> None:
        self.client, self.threshold = client, threshold
        if threshold > 1:
            raise ValueError("a threshold is at most 1")
    def on_frame(self, frame):
        return None

class Blind:
    def __init__(self, client) -> None: ...

constant = 7
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "plan_classes.py").write_text(MODULE)
    (tmp_path / "broken_classes.py").write_text("raise RuntimeError('no camera driver')")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("plan_classes", None)


def consumer(factory: str, **options: float) -> dict[str, ConsumerSection]:
    return {"vpr": ConsumerSection(factory=factory, options=dict(options))}


def test_a_source_is_constructed_from_its_options() -> None:
    source = build_source(FramesSection(source="plan_classes:Source", options={"step": 3}))
    assert source.read(2) == 6


def test_consumers_are_constructed_around_their_own_clients() -> None:
    sections = consumer("plan_classes:Looker", threshold=0.25) | {"c3": ConsumerSection(factory="plan_classes:Looker")}
    built = build_consumers(sections, lambda name: f"client of {name}")
    assert {name: vars(each) for name, each in built.items()} == {
        "vpr": {"client": "client of vpr", "threshold": 0.25},
        "c3": {"client": "client of c3", "threshold": 0.5},
    }


@pytest.mark.parametrize(
    ("factory", "options", "text"),
    [
        ("no_such_module:X", {}, r"\[consumers.vpr\] class: no_such_module cannot be imported: .*PYTHONPATH"),
        ("broken_classes:X", {}, r"\[consumers.vpr\] class: .*RuntimeError: no camera driver"),
        ("plan_classes:X", {}, r"\[consumers.vpr\] class: expected a class X in plan_classes, found nothing"),
        ("plan_classes:constant", {}, r"expected a class constant in plan_classes, found a int"),
        ("plan_classes:Blind", {}, r"\[consumers.vpr\] class: plan_classes:Blind has no method on_frame"),
        ("plan_classes:Looker", {"treshold": 0.1}, r"\[consumers.vpr\] options: \['treshold'\] do not fit Looker\("),
        ("plan_classes:Looker", {"threshold": 2}, r"cannot be constructed: ValueError: a threshold is at most 1"),
    ],
)
def test_a_consumer_that_cannot_be_had_is_refused_by_its_key(
    factory: str, options: dict[str, float], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        build_consumers(consumer(factory, **options), lambda name: None)


def test_a_source_that_does_not_fit_is_refused_by_its_table() -> None:
    with pytest.raises(ConfigError, match=r"^\[frames\] options: \['rate'\] do not fit Source\(step"):
        build_source(FramesSection(source="plan_classes:Source", options={"rate": 3}))
    with pytest.raises(ConfigError, match=r"^\[frames\] source: plan_classes:Looker has no method read"):
        build_source(FramesSection(source="plan_classes:Looker"))


def test_load_class_names_the_key_that_it_is_given() -> None:
    assert load_class("collections:OrderedDict", "[x] y").__name__ == "OrderedDict"
    with pytest.raises(ConfigError, match=r"^\[x\] y: "):
        load_class("collections:Nothing", "[x] y")


def test_frames_are_equal_only_to_themselves() -> None:
    image: npt.NDArray[np.uint8] = np.zeros((1, 1, 3), np.uint8)
    assert Frame(1, 2, image) != Frame(1, 2, image)
