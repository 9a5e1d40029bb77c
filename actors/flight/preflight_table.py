"""The verdict of a preflight for a person: what each engine takes of memory and of the frame, and go or no-go."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from actors.flight.preflight import RUNS_FOR_P99, Verdict
from messages.errors import printable_lines
from runtimes.memory_budget import MIB, MemoryBudget


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Fits 80 columns: only the models' names fold."""
    console.print(_memory_table(verdict.memory))
    console.print(_memory_line(verdict.memory), highlight=False)
    if verdict.engines:
        console.print()
        console.print(_timing_table(verdict))
        console.print(_frame_line(verdict), markup=False, highlight=False)
    for note in _notes(verdict):
        console.print(f"note: {note}", markup=False, highlight=False)
    console.print()
    for problem in verdict.problems:
        console.print(f"NO-GO  {printable_lines(problem)}", markup=False, highlight=False, style="red", soft_wrap=True)
    if verdict.go:
        console.print("GO", style="green")


def _timing_table(verdict: Verdict) -> Table:
    table = _table("durations in ms", "self-\ntest", "first", "median", "p99", "runs", "dead-\nline", "calls")
    for heading in ("calls\nx p99", "of the\nperiod"):
        table.add_column(heading, justify="right", no_wrap=True)
    for engine in verdict.engines:
        table.add_row(
            escape(engine.model),
            engine.self_test,
            _ms(engine.first_run_ms),
            _ms(engine.median_run_ms),
            _ms(engine.p99_run_ms, over=engine.p99_run_ms > engine.deadline_ms),
            str(engine.runs),
            f"{engine.deadline_ms:g}",
            f"{engine.calls_per_frame:g}",
            _ms(engine.frame_ms, over=engine.frame_ms > verdict.frame_period_ms),
            _share(engine.frame_ms, verdict.frame_period_ms),
        )
    return table


def _memory_table(memory: MemoryBudget) -> Table:
    on_gpu = memory.available.device_bytes is not None
    gpu_headings = ("GPU\nload", "GPU\nruns", "GPU\nin use") if on_gpu else ()
    table = _table("memory in MiB, in the order of loading", "file\nbuffers", "load", "runs", "in use", *gpu_headings)
    table.add_column("")
    for step in memory.steps:
        amounts = [step.buffer_bytes, step.load_bytes, step.run_bytes, step.peak_bytes]
        if on_gpu:
            amounts += [step.device_load_bytes, step.device_run_bytes, step.device_peak_bytes]
        mark = "estimated" if step.estimated else ""
        table.add_row(escape(step.model), *(f"{amount / MIB:.1f}" for amount in amounts), mark)
    return table


def _table(title: str, *headings: str) -> Table:
    numbers = [Column(heading, justify="right", no_wrap=True) for heading in headings]
    model = Column("model", overflow="fold", min_width=8)
    return Table(
        model, *numbers, title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )


def _memory_line(memory: MemoryBudget) -> str:
    peak = max((step.peak_bytes for step in memory.steps), default=0)
    line = (
        f"memory: {peak / MIB:.0f} MiB at most, of {memory.available.host_bytes / MIB:.0f} MiB available less"
        f" {memory.reserve_bytes / MIB:.0f} MiB in reserve"
    )
    if memory.available.device_bytes is not None:
        device_peak = max((step.device_peak_bytes for step in memory.steps), default=0)
        line += f"; GPU: {device_peak / MIB:.0f} MiB of {memory.available.device_bytes / MIB:.0f} MiB free"
    return line


def _frame_line(verdict: Verdict) -> str:
    if math.isinf(verdict.frame_period_ms):
        return (
            f"one frame: {verdict.frame_ms:.1f} ms; the plan has no [frames], so there is no period to hold it against"
        )
    return (
        f"one frame: {verdict.frame_ms:.1f} ms of the period of {verdict.frame_period_ms:.1f} ms"
        f" ({_share(verdict.frame_ms, verdict.frame_period_ms)})"
    )


def _notes(verdict: Verdict) -> list[str]:
    notes = []
    few = [engine.model for engine in verdict.engines if 0 < engine.runs < RUNS_FOR_P99]
    if few:
        notes.append(f"of fewer than {RUNS_FOR_P99} runs p99 is the slowest one: {', '.join(few)}")
    made_up = [engine.model for engine in verdict.engines if engine.inputs == "made up"]
    if made_up:
        notes.append(f"timed on made-up inputs, for want of samples: {', '.join(made_up)}")
    untested = [engine.model for engine in verdict.engines if engine.self_test == "none"]
    if untested:
        notes.append(f"no known answers to test against: {', '.join(untested)}; provision to record them")
    estimated = [step.model for step in verdict.memory.steps if step.estimated]
    if estimated:
        notes.append(f"memory never measured, taken as twice the file: {', '.join(estimated)}; provision to measure it")
    return notes


def _ms(duration_ms: float, *, over: bool = False) -> str:
    text = f"{duration_ms:.2f}" if duration_ms < 10 else f"{duration_ms:.1f}"
    return f"[red]{text}[/red]" if over else text


def _share(part_ms: float, whole_ms: float) -> str:
    return "" if math.isinf(whole_ms) else f"{100 * part_ms / whole_ms:.0f} %"
