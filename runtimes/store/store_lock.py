"""The store's lock: one provisioner, signer, rollback or prune changes a store at a time; readers need none."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from messages.errors import EngineStoreError
from runtimes.store.engine_store import EngineStore, store_errors

LOCK_NAME = ".lock"
PROVISIONER_WAITS_S = 4 * 3600.0
"""For another provisioner, which may be compiling for tens of minutes."""
OPERATOR_WAITS_S = 30.0
"""A provisioner at work takes minutes, and may commit something else meanwhile."""
_LOCK_POLL_S = 0.1


@contextmanager
def store_lock(
    store: EngineStore, *, timeout_s: float = PROVISIONER_WAITS_S, waiting: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold the lock of a store whose folder exists, until the block or the process ends.

    What its folder names is durable from then on: who held the lock before may have been killed short of that, and
    nothing is reported, removed or signed on the strength of a name that a power cut takes back. `waiting` is called
    now and then while another holds the lock. Raises EngineStoreError when it still does after `timeout_s`, or when
    the folder is missing or cannot be written.
    """
    with store_errors(store.root, "written"):
        lock = os.open(store.root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        _await_lock(store, lock, timeout_s, waiting)
        with store_errors(store.root, "written"):
            store.disk.fsync_folder(store.root)
        yield
    finally:
        os.close(lock)


def _await_lock(store: EngineStore, lock: int, timeout_s: float, waiting: Callable[[], None] | None) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not _try_lock(lock):
        if time.monotonic() >= give_up_at:
            raise EngineStoreError(
                f"{store.root}: another provisioner, signer, rollback or prune has held the store for"
                f" {timeout_s:.0f} s; wait for it to end, or end it"
            )
        if waiting is not None:
            waiting()
        time.sleep(_LOCK_POLL_S)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
