"""What a person who waits for a store, or reads about one, sees of it."""

from __future__ import annotations

from rich.console import Console
from rich.status import Status

from runtimes.store.verification import HashedSoFar

KIB, MIB = 1024, 1024**2
PIPED_WIDTH = 160
"""A log has no edge to wrap at."""
NARROWEST = 56
"""What the list of generations needs so that no figure is cut off."""


class StoreView:
    """For a person who waits for a store: a live line on a terminal, one line about waiting elsewhere."""

    def __init__(self, *, as_json: bool) -> None:
        self._console = store_console(stderr=as_json)
        self._status = Status("reading", console=self._console) if self._console.is_terminal else None
        self._waiting_was_said = False

    def __enter__(self) -> StoreView:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def wait(self) -> None:
        line = "waiting for another command that changes this store"
        if self._status is not None:
            self._status.update(line)
        elif not self._waiting_was_said:
            self._console.print(line, highlight=False)
        self._waiting_was_said = True

    def hash(self, number: int, so_far: HashedSoFar) -> None:
        if self._status is not None:
            done, total = describe_bytes(so_far.bytes_done), describe_bytes(so_far.bytes_total)
            self._status.update(
                f"hashing generation {number}: {so_far.files_done} of {so_far.files} files, {done} of {total}"
            )


def store_console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    console.width = max(console.width, NARROWEST) if console.is_terminal else PIPED_WIDTH
    return console


def describe_bytes(size_bytes: int) -> str:
    """In MiB, in KiB where that would be less than one."""
    return f"{size_bytes / MIB:,.1f} MiB" if size_bytes >= MIB else f"{size_bytes / KIB:.1f} KiB"
