"""docs/perception.md names what is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from actors.consumer import load_class
from actors.perception.frame_runs import FrameRuns
from actors.strategy_registry import AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS, AIRBORNE_STRATEGIES
from messages import OutOfMemoryError, RequestRejectedError, Tensor

PAGE = (Path(__file__).parents[3] / "docs" / "perception.md").read_text(encoding="utf-8")
STRATEGIES = [(slug, name, path) for slug, named in AIRBORNE_STRATEGIES.items() for name, path in named.items()]


@pytest.mark.parametrize(("component", "strategy", "path"), STRATEGIES)
def test_every_strategy_has_its_line_with_its_class_and_its_needs(component: str, strategy: str, path: str) -> None:
    cls = path.rpartition(":")[2]
    (line,) = re.findall(rf"^\| `{component}` \|.*$", PAGE, re.MULTILINE)
    assert line.startswith(f"| `{component}` | `{strategy}` | `{cls}` | ")
    for need in AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS[component]:
        assert f"`{need}`" in line


@pytest.mark.parametrize("path", [path for _, _, path in STRATEGIES])
def test_every_option_is_named_with_its_default(path: str) -> None:
    cls = load_class(path, "test")
    (line,) = re.findall(
        rf"^\| `{cls.__name__}` \|.*\|$", PAGE.partition("## Engines")[2].partition("\n## ")[0], re.MULTILINE
    )
    for option in inspect.signature(cls).parameters.values():
        if option.kind is option.KEYWORD_ONLY:
            assert f"`{option.name}`" in line
            assert option.default is option.empty or f"`{option.name}` ({option.default})" in line


def test_the_texts_of_degraded_frames_are_those_that_are_told() -> None:
    def fails(error: Exception) -> str | None:
        runs = FrameRuns()

        def run(_inputs: object) -> dict[str, Tensor]:
            raise error

        runs.ask("ultravpr", run, {})
        return runs.degraded

    restarts = RequestRejectedError("engine_unavailable", "a long text", detail="error 716")
    assert f"\n{fails(restarts)}\n" in PAGE
    runs = FrameRuns()
    steps: list[Exception | None] = [
        None,
        RequestRejectedError("shed", "newer"),
        *[None] * 6,
        RequestRejectedError("shed", "newer"),
        OutOfMemoryError("full"),
    ]
    for step in steps:

        def run(_inputs: object, step: Exception | None = step) -> dict[str, Tensor]:
            if step is not None:
                raise step
            return {}

        runs.ask("lightglue", run, {})
    assert f"\n{runs.degraded}\n" in PAGE
