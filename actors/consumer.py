"""What a flight is made of on the user's side: pictures, where they come from, and who looks at them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Protocol, cast

import msgspec
import numpy as np
import numpy.typing as npt

from messages import ConfigError, describe_error
from runtimes.flight_plan import ConsumerSection, FramesSection, Options


class Frame(msgspec.Struct, frozen=True, eq=False):
    """One picture of the flight.

    `frame_id` counts from the flight's first frame and leaves out those that were skipped; `captured_ns` is
    CLOCK_MONOTONIC nanoseconds. `image` is uint8[height, width, 3] and read-only: every consumer gets the same array.
    """

    frame_id: int
    captured_ns: int
    image: npt.NDArray[np.uint8]


class FrameSource(Protocol):
    """Where pictures come from: a camera, a folder. Constructed on the main thread as `Class(**options)`."""

    def read(self, frame_id: int) -> npt.NDArray[np.uint8]:
        """The picture of this moment, uint8[height, width, 3]. Called by the frame thread only, one call at a time.

        The array belongs to the consumers from then on: return a new one each time, or one that is never written
        again. May raise: that frame is then missing, and the next one is asked for in its turn.
        """
        ...


class Consumer(Protocol):
    """A component that looks at frames. Constructed on the main thread as `Class(client, **options)`."""

    def on_frame(self, frame: Frame) -> str | None:
        """Work on one frame: None where it went well, otherwise how this frame's result is degraded and why.

        Called on this consumer's own thread, never on the main one, one frame at a time: always the newest. Frames
        that came while it worked are missed. What it raises is a degraded frame too.
        """
        ...


def check_classes(frames: FramesSection | None, consumers: Mapping[str, ConsumerSection]) -> None:
    """Import every class that the plan names and fit its options, without constructing any. Raises ConfigError."""
    if frames is None and consumers:
        raise ConfigError("[consumers] expects [frames] source: consumers are driven by frames")
    if frames is not None:
        _resolve(frames.source, (), frames.options, "read", "[frames]", "source")
    for name, section in consumers.items():
        _resolve(section.factory, (None,), section.options, "on_frame", f"[consumers.{name}]", "class")


def build_source(frames: FramesSection) -> FrameSource:
    """The plan's frame source. Raises ConfigError naming the plan's table and key."""
    return cast("FrameSource", _construct(frames.source, (), frames.options, "read", "[frames]", "source"))


def build_consumers(sections: Mapping[str, ConsumerSection], client_of: Callable[[str], object]) -> dict[str, Consumer]:
    """The plan's consumers by name, each around the client that `client_of(name)` gives. Raises ConfigError."""
    return {
        name: cast(
            "Consumer",
            _construct(
                section.factory, (client_of(name),), section.options, "on_frame", f"[consumers.{name}]", "class"
            ),
        )
        for name, section in sections.items()
    }


def load_class(import_path: str, plan_key: str) -> type:
    """The class behind `module:Class`. Raises ConfigError naming `plan_key` where there is none."""
    module_name, _, class_name = import_path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an import runs the user's code, which may raise anything
        raise ConfigError(
            f"{plan_key}: {module_name} cannot be imported: {describe_error(error)}. Expected a module that is "
            "installed beside this program, or that lies in a folder of PYTHONPATH"
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        what = "nothing of that name" if found is None else f"a {type(found).__name__}"
        raise ConfigError(f"{plan_key}: expected a class {class_name} in {module_name}, found {what}")
    return found


def _construct(
    import_path: str, arguments: tuple[object, ...], options: Options, method: str, table: str, key: str
) -> object:
    cls = _resolve(import_path, arguments, options, method, table, key)
    try:
        return cls(*arguments, **options)
    except Exception as error:  # a constructor is the user's code and may raise anything
        raise ConfigError(f"{table} {key}: {import_path} cannot be constructed: {describe_error(error)}") from error


def _resolve(
    import_path: str, arguments: tuple[object, ...], options: Options, method: str, table: str, key: str
) -> Callable[..., object]:
    """The class, which has `method` and takes `arguments` and `options`. Raises ConfigError."""
    plan_key = f"{table} {key}"
    cls = load_class(import_path, plan_key)
    if not callable(getattr(cls, method, None)):
        raise ConfigError(f"{plan_key}: {import_path} has no method {method}(...), which it is called by")
    try:
        signature = inspect.signature(cls)
    except ValueError:  # a class written in C need not have one; its constructor then speaks for itself
        return cls
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        raise ConfigError(
            f"{table} options: {sorted(options)} do not fit {cls.__name__}{signature}: {error}"
        ) from error
    return cls
