"""Blocks of host memory that stand for the device's and for pinned ones, and what was done wrongly with them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .error_codes import DeviceError

ALIGNMENT = 256
"""CUDA C++ Programming Guide, "Device Memory Accesses": what an allocation routine returns is aligned to 256 bytes."""

FRESH, FREED = 0xCD, 0xDD
_FILLED_BYTES = 1 << 20
_KEPT_BYTES = 256 << 20

Kind = Literal["device", "pinned"]


@dataclass(frozen=True)
class Block:
    kind: Kind
    address: int
    size_bytes: int
    view: npt.NDArray[np.uint8]


class Memory:
    """Every block by its address. Freed ones stay readable for a while, full of 0xDD, so that a late reader lives.

    Each use after free, second free and address that is nobody's goes to `misuses` in words.
    """

    def __init__(self, misuses: list[str]) -> None:
        self.total_bytes = 8 << 30
        self.misuses = misuses
        self._live: dict[int, Block] = {}
        self._freed: OrderedDict[int, Block] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def used_bytes(self) -> int:
        with self._lock:
            return sum(block.size_bytes for block in self.live())

    def live(self) -> list[Block]:
        with self._lock:
            return list(self._live.values())

    def allocate(self, size_bytes: int, kind: Kind) -> int:
        """The address. Raises DeviceError 2 where the device, whose memory pinned blocks share, has too little."""
        with self._lock:
            if size_bytes > self.total_bytes - self.used_bytes:
                raise DeviceError(2)
            if size_bytes == 0:
                return 0
            raw = np.empty(size_bytes + ALIGNMENT, np.uint8)
            offset = -raw.ctypes.data % ALIGNMENT
            view = raw[offset : offset + size_bytes]
            view[:_FILLED_BYTES] = FRESH
            address = int(view.ctypes.data)
            self._freed.pop(address, None)
            self._live[address] = Block(kind, address, size_bytes, view)
            return address

    def free(self, address: int, kind: Kind) -> None:
        """Raises DeviceError 1 where there is no such block."""
        if address == 0:
            return
        with self._lock:
            block = self._live.get(address)
            if block is None or block.kind != kind:
                again = " again" if address in self._freed else ""
                self._misused(f"{kind} memory at {address:#x} was freed{again}; no such block is allocated")
                raise DeviceError(1)
            del self._live[address]
            block.view[:_FILLED_BYTES] = FREED
            self._freed[address] = block
            while sum(each.size_bytes for each in [*self._freed.values()]) > _KEPT_BYTES:
                self._freed.popitem(last=False)

    def find(self, address: int, size_bytes: int) -> npt.NDArray[np.uint8] | None:
        """The bytes of a live block; None where the address is in none, such as pageable memory of the host.

        Raises DeviceError 700 where the block was freed or is too short.
        """
        with self._lock:
            block = _around(self.live(), address)
            if block is not None:
                offset = address - block.address
                if offset + size_bytes > block.size_bytes:
                    self._misused(
                        f"{size_bytes} bytes at {address:#x} reach past the end of a {block.kind} block of"
                        f" {block.size_bytes} bytes at {block.address:#x}"
                    )
                    raise DeviceError(700)
                return block.view[offset : offset + size_bytes]
            freed = _around([*self._freed.values()], address)
            if freed is not None:
                self._misused(f"{size_bytes} bytes at {address:#x} were used after their {freed.kind} block was freed")
                raise DeviceError(700)
            return None

    def require(self, address: int, size_bytes: int) -> npt.NDArray[np.uint8]:
        """As `find`; an address in no block is a DeviceError 700 too."""
        found = self.find(address, size_bytes)
        if found is None:
            with self._lock:
                self._misused(f"{size_bytes} bytes at {address:#x} are in no block of the device")
            raise DeviceError(700)
        return found

    def _misused(self, line: str) -> None:
        self.misuses.append(line)


def _around(blocks: list[Block], address: int) -> Block | None:
    """A list of its own: the collector may free a block on this very thread in the middle of the search."""
    return next((each for each in blocks if each.address <= address < each.address + each.size_bytes), None)
