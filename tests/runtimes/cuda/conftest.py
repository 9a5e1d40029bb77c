"""A thread of its own for one call."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


@pytest.fixture
def on_thread() -> Callable[[Callable[[], Any]], Any]:
    """Calls a function on a thread of its own, waits for it, and gives back or raises what it did."""

    def call(function: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result(timeout=60)

    return call
