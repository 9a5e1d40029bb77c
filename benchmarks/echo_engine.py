"""What the message benchmarks run: an engine that returns its input, and figures set beside what is demanded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from messages import Tensor
from runtimes import EngineHandle, FakeRuntime, computes

MODEL = "echo"
INPUTS: dict[str, np.ndarray] = {"x": np.zeros(16, np.float32)}
Row = tuple[str, float, float | None]
"""What was measured, the figure, and the most it may be, None where nothing is demanded."""


def same(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(inputs)


class EchoRuntime(FakeRuntime):
    """An engine that returns its input and does nothing else: a FakeRuntime's script would be measured too.

    `run` is called instead where one is given.
    """

    def __init__(self, run: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = same) -> None:
        super().__init__({MODEL: computes(same)})
        self._run = run

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        return self._run(inputs)


def quantile(durations_ns: Iterable[int], share: float) -> float:
    ordered = sorted(durations_ns)
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def durations_ns(call: Callable[[], object], count: int) -> list[int]:
    measured = []
    for _ in range(count):
        started_ns = time.perf_counter_ns()
        call()
        measured.append(time.perf_counter_ns() - started_ns)
    return measured


def verdict(figure: float, at_most: float | None) -> str:
    if at_most is None:
        return ""
    return (
        f"[green]met[/green], at most {at_most:g}" if figure <= at_most else f"[red]missed[/red], at most {at_most:g}"
    )


def print_rows(title: str, rows: Sequence[Row], caption: str) -> None:
    table = Table(title, "figure", "demanded", caption=caption)
    for name, figure, at_most in rows:
        table.add_row(name, f"{figure:.4g}", verdict(figure, at_most))
    print_table(table)


def print_table(table: Table) -> None:
    """With the load beside it: a busy machine moves every figure, ratios the least."""
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    table.caption = f"{table.caption}; {load}" if table.caption else load
    table.caption_justify = "left"
    Console(width=132 if not Console().is_terminal else None).print(table)
