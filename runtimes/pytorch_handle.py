"""A program that is resident: who runs it, and when its weights are freed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from messages import InferenceError
from runtimes.engine_use import EngineUse
from runtimes.exported_model import ExportedModel
from runtimes.inference_runtime import EngineCacheEntry, ProfileRange

if TYPE_CHECKING:
    import torch

    Run = Callable[[list[torch.Tensor]], list[torch.Tensor]]


class PytorchHandle:
    """A loaded or suspended program. `run` takes the inputs in the program's order and returns the outputs in theirs.

    The modules of an exported program hold each other, so that its weights would stay until Python's garbage collector
    comes by: they are freed by name. Callable from any thread; a run that is under way at a release frees them.
    """

    def __init__(
        self,
        entry: EngineCacheEntry,
        model: ExportedModel,
        profile: tuple[ProfileRange, ...],
        run: Run,
        weights: Sequence[torch.Tensor],
    ) -> None:
        self.entry = entry
        self.model = model
        self.profile = profile
        self._run: Run | None = run
        self._weights = weights
        self._lock = threading.Lock()
        self._use = EngineUse(entry.model)

    @contextmanager
    def running(self) -> Iterator[Run]:
        """The program, for one run. Raises InferenceError where the engine is suspended or released."""
        with self._use.running():
            run = self._run
            assert run is not None  # noqa: S101 - only what ends its use takes it away
            yield run
            del run

    def suspend(self) -> None:
        self._use.end(_keep)

    def resumed(self) -> PytorchHandle:
        """A handle around the program of this one, which is suspended and keeps it no longer."""
        with self._lock:
            run, weights = self._run, self._weights
            self._run, self._weights = None, ()
        if run is None:
            raise InferenceError(f"{self.entry.model}: the engine was released while it was resumed")
        return PytorchHandle(self.entry, self.model, self.profile, run, weights)

    def release(self) -> None:
        self._use.end(self._free)

    def _free(self) -> None:
        with self._lock:
            weights, self._weights, self._run = self._weights, (), None
        for tensor in weights:
            _let_go(tensor)


def _keep() -> None:
    """Of a suspended program nothing is given back."""


def _let_go(tensor: torch.Tensor) -> None:
    """Leave the tensor without memory; what it is a view of too, which is how buffers come out of a `.pt2`."""
    import torch

    with torch.no_grad():
        for each in (tensor, tensor._base):  # noqa: SLF001 - torch has no public name for it
            if each is not None:
                each.set_()  # type: ignore[call-overload]
