"""The ways from one object to another by references alone: any attribute, closures, bound methods, containers."""

from __future__ import annotations

import gc
from collections import deque
from types import CodeType, FrameType, FunctionType, ModuleType


def ways(root: object, target: object) -> list[str]:
    """From each object that `root` leads to and that refers to `target`: the types on the shortest way there.

    What belongs to everybody is not walked: modules, the globals of functions, classes and code. A weak reference leads
    nowhere.
    """
    found: list[str] = []
    came_from: dict[int, object] = {id(root): None}
    kept: list[object] = [root]  # an address stands for one object as long as that lives
    line: deque[object] = deque(kept)
    while line:
        each = line.popleft()
        shared = id(each.__globals__) if isinstance(each, FunctionType) else None
        for referent in gc.get_referents(each):
            if referent is target:
                found.append(_way(each, came_from))
            elif (
                id(referent) not in came_from
                and id(referent) != shared
                and not isinstance(referent, ModuleType | type | FrameType | CodeType)
            ):
                came_from[id(referent)] = each
                kept.append(referent)
                line.append(referent)
    return found


def _way(last: object, came_from: dict[int, object]) -> str:
    steps: list[str] = []
    step: object = last
    while step is not None:
        steps.append(type(step).__name__)
        step = came_from[id(step)]
    return " > ".join(reversed(steps))
