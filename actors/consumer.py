"""What a flight is made of on the user's side: pictures, where they come from, and who looks at them."""

from __future__ import annotations

import importlib
import inspect
from typing import Protocol, cast

import msgspec
import numpy as np
import numpy.typing as npt

from messages import ConfigError, describe_error
from runtimes.flight_plan import FramesSection


class Frame(msgspec.Struct, frozen=True, eq=False):
    """One picture of the flight.

    `frame_id` counts from the flight's first frame and leaves out those that were skipped; `captured_ns` is
    CLOCK_MONOTONIC nanoseconds. `image` is uint8[height, width, 3] and read-only: every consumer gets the same array.
    """

    frame_id: int
    captured_ns: int
    image: npt.NDArray[np.uint8]


class FrameSource(Protocol):
    """Where pictures come from: a camera, a folder.

    Constructed as `Class(**options)`: on the main thread, or, in a recovery, on the frame thread and again with each
    frame until it succeeds.
    """

    def read(self, frame_id: int) -> npt.NDArray[np.uint8]:
        """The picture of this moment, uint8[height, width, 3]. Called by the frame thread only, one call at a time.

        The array belongs to the consumers from then on: return a new one each time, or one that is never written
        again. May raise: that frame is then missing, and the next one is asked for in its turn.
        """
        ...


class Consumer(Protocol):
    """A component that looks at frames. Constructed on the main thread as `Class(**needs, **options)`."""

    def on_frame(self, frame: Frame) -> str | None:
        """Work on one frame: None where it went well, otherwise how this frame's result is degraded and why.

        Called on this consumer's own thread, never on the main one, one frame at a time: always the newest. Frames
        that came while it worked are missed. What it raises is a degraded frame too. A `frame_scope` is around it: all
        calls of a supervised runtime are this consumer's, for this frame, under one deadline.
        """
        ...


def check_source(frames: FramesSection) -> None:
    """Import the class that the plan names and fit its options, without constructing it. Raises ConfigError."""
    _source_class(frames)


def build_source(frames: FramesSection) -> FrameSource:
    """The plan's frame source. Raises ConfigError naming the plan's table and key."""
    cls = _source_class(frames)
    try:
        return cast("FrameSource", cls(**frames.options))
    except (Exception, SystemExit) as error:  # the user's code may raise anything and ends no process
        raise ConfigError(f"[frames] source: {frames.source} cannot be constructed: {describe_error(error)}") from error


def load_class(import_path: str, plan_key: str) -> type:
    """The class behind `module:Class`. Raises ConfigError naming `plan_key` where there is none."""
    module_name, _, class_name = import_path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # an import runs the user's code
        raise ConfigError(
            f"{plan_key}: {module_name} cannot be imported: {describe_error(error)}. Expected a module that is "
            "installed beside this program, or that lies in a folder of PYTHONPATH"
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        what = "nothing of that name" if found is None else f"a {type(found).__name__}"
        raise ConfigError(f"{plan_key}: expected a class {class_name} in {module_name}, found {what}")
    return found


def check_method(factory: object, method: str, import_path: str, plan_key: str) -> None:
    """Raises ConfigError naming `plan_key` for a class that has no such method."""
    if not callable(getattr(factory, method, None)):
        raise ConfigError(f"{plan_key}: {import_path} has no method {method}(...), which it is called by")


def _source_class(frames: FramesSection) -> type:
    cls = load_class(frames.source, "[frames] source")
    check_method(cls, "read", frames.source, "[frames] source")
    try:
        signature = inspect.signature(cls)
    except ValueError:  # a class written in C need not have one; its constructor then speaks for itself
        return cls
    try:
        signature.bind(**frames.options)
    except TypeError as error:
        raise ConfigError(
            f"[frames] options: {sorted(frames.options)} do not fit {cls.__name__}{signature}: {error}"
        ) from error
    return cls
