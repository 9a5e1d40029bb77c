"""How a life of a flight process may end badly, as scripts for its engines."""

from __future__ import annotations

import random
import threading
from typing import Literal, NamedTuple, get_args

from messages import DeviceContextError, Tensor
from runtimes import EngineHandle, FakeRuntime
from runtimes.fake_runtime import FakeHandle
from runtimes.fake_stage import Stage
from runtimes.fake_steps import Step, Tensors, hangs, hangs_at_load, takes_ms
from tests.actors.chaos import scripts
from tests.actors.chaos.questions import answer

Ending = Literal[
    "an engine hangs",
    "an engine hangs and then crashes",
    "an engine never lets go of its device",
    "a run outlasts every deadline",
    "the device is gone in a run",
    "the device is gone in a load",
    "a load hangs",
    "a load hangs while the context is lost",
    "the context is lost",
    "the supervisor dies",
    "it is stopped in flight",
]
ENDINGS: tuple[Ending, ...] = get_args(Ending)
HANGS: frozenset[Ending] = frozenset(ENDINGS[:3])
RESTART_NEEDED: dict[Ending, str] = {
    **dict.fromkeys(HANGS, "has not returned for"),
    "the device is gone in a run": scripts.DEVICE_GONE_DETAIL,
    "the device is gone in a load": scripts.DEVICE_GONE_DETAIL,
    "the supervisor dies": "the supervisor died",
}
"""What is said of a life whose engines only another process can bring back."""
COMES_BACK: frozenset[Ending] = frozenset(
    [
        "a run outlasts every deadline",
        "a load hangs",
        "a load hangs while the context is lost",
        "the context is lost",
    ]
)
"""After which engines answer again in the same process."""

MODELS = ("vpr", "extractor", "matcher")
RUN_MS = 0.5
FAULTY = 0.03
CONTEXTS_LOST = 3


class Doom:
    """The moment at which an ending begins: `came`, and how many runs had begun by then, that one included."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.runs = 0
        self.fake: FakeRuntime | None = None

    def then(self, step: Step) -> Step:
        """The step, which brings it."""

        def play(inputs: Tensors, stage: Stage) -> dict[str, Tensor]:
            assert self.fake is not None
            if not self.came.is_set():
                self.runs = len(self.fake.calls)
                self.came.set()
            return step.play(inputs, stage)

        return Step(play, at_load=step.at_load)


class Scene(NamedTuple):
    """A life's engines. `unlucky` is the one whose script brings the ending about."""

    fake: FakeRuntime
    unlucky: str
    doom: Doom


def set_scene(ending: Ending, choose: random.Random) -> Scene:
    unlucky = choose.choice(MODELS)
    doom = Doom()
    others: list[Step] | None = None
    if ending == "a load hangs while the context is lost":
        others = [takes_ms(RUN_MS, _loses_context_after(doom.came))]
    played = {
        model: [*_drawn(choose, choose.randrange(100)), *_last_steps(ending, doom)]
        if model == unlucky
        else others or _drawn(choose, 2000)
        for model in MODELS
    }
    clings = ending == "an engine never lets go of its device"
    doom.fake = Clinging(played, unlucky) if clings else FakeRuntime(played)
    return Scene(doom.fake, unlucky, doom)


class Clinging(FakeRuntime):
    """An engine of the unlucky model does not let go of its device before `release_hung`."""

    def __init__(self, played: dict[str, list[Step]], unlucky: str) -> None:
        super().__init__(played)
        self._unlucky = unlucky

    def suspend_engine(self, handle: EngineHandle) -> None:
        self._cling(handle)
        super().suspend_engine(handle)

    def release_engine(self, handle: EngineHandle) -> None:
        self._cling(handle)
        super().release_engine(handle)

    def _cling(self, handle: EngineHandle) -> None:
        assert isinstance(handle, FakeHandle)
        if handle.entry.model == self._unlucky:
            self.stage.hang()


def _drawn(choose: random.Random, steps: int) -> list[Step]:
    return scripts.script(choose, steps=steps, run_ms=RUN_MS, faulty=FAULTY)


def _last_steps(ending: Ending, doom: Doom) -> list[Step]:
    fault, fine = scripts.FAULTS["engine fault"][0], scripts.run(RUN_MS)
    lasts: dict[Ending, list[Step]] = {
        "an engine hangs": [doom.then(hangs(fine))],
        "an engine hangs and then crashes": [doom.then(hangs(fault))],
        "an engine never lets go of its device": [fault],
        "a run outlasts every deadline": [doom.then(hangs(fine)), fine],
        "the device is gone in a run": [doom.then(scripts.DEVICE_GONE)],
        "the device is gone in a load": [fault, doom.then(scripts.DEVICE_GONE_AT_LOAD)],
        "a load hangs": [fault, doom.then(hangs_at_load()), fine],
        "a load hangs while the context is lost": [fault, doom.then(hangs_at_load()), fine],
        "the context is lost": [scripts.CONTEXT_LOST, fine, fine, fine] * CONTEXTS_LOST,
    }
    return lasts.get(ending, [fine])


def _loses_context_after(came: threading.Event) -> Step:
    """Answers; the first run after that loses the context."""
    lock = threading.Lock()

    def play(inputs: Tensors, _stage: Stage) -> dict[str, Tensor]:
        if came.is_set() and lock.acquire(blocking=False):
            raise DeviceContextError(scripts.CONTEXT_LOST_DETAIL)
        return dict(answer(inputs))

    return Step(play)
