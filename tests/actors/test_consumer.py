"""A frame source that a plan names is found, fitted and constructed, or refused by the plan's own key."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from actors.consumer import Frame, build_source, check_source, load_class
from messages import ConfigError
from runtimes.flight_plan import FramesSection

MODULE = """
class Source:
    def __init__(self, step: int = 1) -> None:
        if step > 10:
            raise ValueError("a step is at most 10")
        self.step = step
    def read(self, frame_id):
        return frame_id * self.step

class Blind:
    def __init__(self) -> None: ...

constant = 7
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "plan_classes.py").write_text(MODULE)
    (tmp_path / "broken_classes.py").write_text("raise RuntimeError('no camera driver')")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("plan_classes", None)


def test_a_source_is_constructed_from_its_options() -> None:
    source = build_source(FramesSection(source="plan_classes:Source", options={"step": 3}))
    assert source.read(2) == 6


@pytest.mark.parametrize(
    ("source", "options", "text"),
    [
        ("no_such_module:X", {}, r"^\[frames\] source: no_such_module cannot be imported: .*PYTHONPATH"),
        ("broken_classes:X", {}, r"^\[frames\] source: .*RuntimeError: no camera driver"),
        ("plan_classes:X", {}, r"^\[frames\] source: expected a class X in plan_classes, found nothing"),
        ("plan_classes:constant", {}, "expected a class constant in plan_classes, found a int"),
        ("plan_classes:Blind", {}, r"^\[frames\] source: plan_classes:Blind has no method read"),
        ("plan_classes:Source", {"rate": 3}, r"^\[frames\] options: \['rate'\] do not fit Source\(step"),
    ],
)
def test_a_source_that_cannot_be_had_is_refused_by_its_key(source: str, options: dict[str, int], text: str) -> None:
    frames = FramesSection(source=source, options=dict(options))
    with pytest.raises(ConfigError, match=text):
        check_source(frames)
    with pytest.raises(ConfigError, match=text):
        build_source(frames)


def test_a_source_is_checked_without_being_constructed() -> None:
    frames = FramesSection(source="plan_classes:Source", options={"step": 11})
    check_source(frames)
    with pytest.raises(ConfigError, match=r"Source cannot be constructed: ValueError: a step is at most 10"):
        build_source(frames)


def test_load_class_names_the_key_that_it_is_given() -> None:
    assert load_class("collections:OrderedDict", "[x] y").__name__ == "OrderedDict"
    with pytest.raises(ConfigError, match=r"^\[x\] y: "):
        load_class("collections:Nothing", "[x] y")


def test_frames_are_equal_only_to_themselves() -> None:
    image: npt.NDArray[np.uint8] = np.zeros((1, 1, 3), np.uint8)
    assert Frame(1, 2, image) != Frame(1, 2, image)
