"""Python's callbacks called as TensorRT calls them: through the virtual functions of the C++ object behind each.

The functions are those of `stub/nvinfer_plugin.cpp` and `stub/nvinfer.cpp`; ctypes calls them without the interpreter's
lock. Only for a process that imports NVIDIA's bindings over the stub.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char, c_char_p, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from types import ModuleType
from typing import Any

TEXT_MAX_BYTES = 8192

_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "call_class_name": (c_char_p, (c_void_p,)),
    "call_interface_version": (c_int32, (c_void_p, c_char_p, c_size_t)),
    "call_log": (None, (c_bool, c_void_p, c_int32, c_char_p)),
    "call_error_count": (c_int32, (c_bool, c_void_p)),
    "call_error_code": (c_int32, (c_bool, c_void_p, c_int32)),
    "call_error_text": (None, (c_bool, c_void_p, c_int32, c_char_p, c_size_t)),
    "call_overflowed": (c_bool, (c_bool, c_void_p)),
    "call_clear": (None, (c_bool, c_void_p)),
    "call_report_error": (c_bool, (c_bool, c_void_p, c_int32, c_char_p)),
    "call_references": (c_int32, (c_void_p, c_int32)),
    "call_phase_start": (None, (c_bool, c_void_p, c_char_p, c_char_p, c_int32)),
    "call_step_complete": (c_bool, (c_bool, c_void_p, c_char_p, c_int32)),
    "call_phase_finish": (None, (c_bool, c_void_p, c_char_p)),
    "call_batch_size": (c_int32, (c_bool, c_void_p)),
    "call_batch": (c_bool, (c_bool, c_void_p, POINTER(c_void_p), POINTER(c_char_p), c_int32)),
    "call_read_cache": (c_void_p, (c_bool, c_void_p, POINTER(c_size_t))),
    "call_write_cache": (None, (c_bool, c_void_p, c_void_p, c_size_t)),
    "call_algorithm": (c_int32, (c_bool, c_void_p)),
    "call_reallocate": (c_void_p, (c_bool, c_void_p, c_char_p, c_void_p, c_uint64, c_uint64)),
    "call_reallocate_async": (c_void_p, (c_bool, c_void_p, c_char_p, c_void_p, c_uint64, c_uint64, c_void_p)),
    "call_notify_shape": (None, (c_bool, c_void_p, c_char_p, c_int32, POINTER(c_int64))),
    "stub_given": (c_void_p, ()),
    "stub_registers_plugins": (None, (c_bool,)),
}
_FACTORIES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "stub_will_say": (None, (c_int32, c_char_p, c_bool)),
    "stub_hear_out": (None, ()),
    "stub_last_logger": (c_void_p, ()),
    "stub_makes_runtime": (None, (c_bool, c_bool)),
    "stub_will_report": (None, (c_int32, c_char_p, c_bool)),
    "stub_plan": (c_void_p, (POINTER(c_size_t),)),
    "stub_recorder": (c_void_p, ()),
    "stub_runtimes_alive": (c_int32, ()),
}


class Core:
    """What TensorRT's core does with one callback object. `on_thread` has each call made on a C++ thread of its own."""

    def __init__(self, trt: ModuleType, *, on_thread: bool = False) -> None:
        self.on_thread = on_thread
        self._trt = trt
        self._library = ctypes.CDLL("libnvinfer_plugin.so.10")
        self._factories = ctypes.CDLL("libnvinfer.so.10")
        for library, functions in ((self._library, _FUNCTIONS), (self._factories, _FACTORIES)):
            for name, (result, arguments) in functions.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments

    def address(self, callbacks: object) -> int:
        """Of the C++ object, as the bindings cast it when they hand it over."""
        self._trt.init_libnvinfer_plugins(callbacks, "")
        return int(self._library.stub_given())

    def class_name(self, callbacks: object) -> str:
        mangled: bytes = self._library.call_class_name(self.address(callbacks))
        return mangled.decode()

    def interface(self, callbacks: object) -> tuple[str, int]:
        """Its kind and major version, as it says itself."""
        kind = ctypes.create_string_buffer(TEXT_MAX_BYTES)
        major = self._library.call_interface_version(self.address(callbacks), kind, TEXT_MAX_BYTES)
        return kind.value.decode(), int(major)

    # Logger

    def will_say(self, severity: int, text: str, *, from_thread: bool = False) -> None:
        """What the next Builder or Runtime says while it is made, or a thread of its own meanwhile."""
        self._factories.stub_will_say(severity, text.encode(), from_thread)

    def hear_out(self) -> None:
        """Wait for the threads that the factories started."""
        self._factories.stub_hear_out()

    def last_logger(self) -> int:
        """The address of the logger that the last factory was given."""
        return int(self._factories.stub_last_logger())

    def log(self, logger: object, severity: int, text: str | bytes) -> None:
        self.log_at(self.address(logger), severity, text)

    def log_at(self, address: int, severity: int, text: str | bytes) -> None:
        said = text if isinstance(text, bytes) else text.encode()
        self._library.call_log(self.on_thread, address, severity, said)

    # Runtime

    def makes_runtimes(self, makes: bool, *, host_code_allowed: bool = False, plugins: bool = True) -> None:
        """Whether `Runtime(...)` gives one that loads nothing, and what it and the plugins say of themselves."""
        self._factories.stub_makes_runtime(makes, host_code_allowed)
        self._library.stub_registers_plugins(makes and plugins)

    def will_report(self, code: int, text: str) -> None:
        """What the next load reports to its error recorder."""
        self._factories.stub_will_report(code, text.encode(), self.on_thread)

    def loaded_plan(self) -> bytes:
        """What the last load was given."""
        size = c_size_t()
        address = self._factories.stub_plan(ctypes.byref(size))
        return ctypes.string_at(address, size.value)

    def recorder(self) -> int:
        """The address of the error recorder that a runtime was given."""
        return int(self._factories.stub_recorder())

    def runtimes_alive(self) -> int:
        return int(self._factories.stub_runtimes_alive())

    # Error recorder

    def error_count(self, recorder: object) -> int:
        return int(self._library.call_error_count(self.on_thread, self.address(recorder)))

    def error_code(self, recorder: object, index: int) -> int:
        return int(self._library.call_error_code(self.on_thread, self.address(recorder), index))

    def error_text(self, recorder: object, index: int) -> str:
        text = ctypes.create_string_buffer(TEXT_MAX_BYTES)
        self._library.call_error_text(self.on_thread, self.address(recorder), index, text, TEXT_MAX_BYTES)
        return text.value.decode()

    def overflowed(self, recorder: object) -> bool:
        return bool(self._library.call_overflowed(self.on_thread, self.address(recorder)))

    def clear(self, recorder: object) -> None:
        self._library.call_clear(self.on_thread, self.address(recorder))

    def report_error(self, recorder: object, code: int, text: str) -> bool:
        return bool(self._library.call_report_error(self.on_thread, self.address(recorder), code, text.encode()))

    def references(self, recorder: object, step: int) -> int:
        """The count after one more or one less."""
        return int(self._library.call_references(self.address(recorder), step))

    # Progress monitor

    def phase_start(self, monitor: object, phase: str, parent: str | None, steps: int) -> None:
        self.phase_start_at(self.address(monitor), phase, parent, steps)

    def phase_start_at(self, address: int, phase: str, parent: str | None, steps: int) -> None:
        above = None if parent is None else parent.encode()
        self._library.call_phase_start(self.on_thread, address, phase.encode(), above, steps)

    def step_complete(self, monitor: object, phase: str, step: int) -> bool:
        return self.step_complete_at(self.address(monitor), phase, step)

    def step_complete_at(self, address: int, phase: str, step: int) -> bool:
        return bool(self._library.call_step_complete(self.on_thread, address, phase.encode(), step))

    def phase_finish(self, monitor: object, phase: str) -> None:
        self._library.call_phase_finish(self.on_thread, self.address(monitor), phase.encode())

    # INT8 calibrator

    def batch_size(self, calibrator: object) -> int:
        return int(self._library.call_batch_size(self.on_thread, self.address(calibrator)))

    def batch(self, calibrator: object, names: list[str]) -> list[int] | None:
        """The addresses of one batch, None where the data has ended."""
        addresses = (c_void_p * len(names))()
        texts = (c_char_p * len(names))(*(name.encode() for name in names))
        given = self._library.call_batch(self.on_thread, self.address(calibrator), addresses, texts, len(names))
        return [int(address or 0) for address in addresses] if given else None

    def read_cache(self, calibrator: object) -> bytes | None:
        size = c_size_t()
        address = self._library.call_read_cache(self.on_thread, self.address(calibrator), ctypes.byref(size))
        return None if address is None else ctypes.string_at(address, size.value)

    def write_cache(self, calibrator: object, table: bytes) -> None:
        """In memory that is overwritten when the callback has returned."""
        memory = (c_char * len(table)).from_buffer_copy(table)
        self._library.call_write_cache(self.on_thread, self.address(calibrator), memory, len(table))
        assert memory.raw == b"x" * len(table)

    def algorithm(self, calibrator: object) -> int:
        return int(self._library.call_algorithm(self.on_thread, self.address(calibrator)))

    # Output allocator

    def reallocate(self, allocator: object, tensor: str, memory: int, size: int, alignment: int) -> int:
        found = self._library.call_reallocate(
            self.on_thread, self.address(allocator), tensor.encode(), memory, size, alignment
        )
        return int(found or 0)

    def reallocate_async(
        self, allocator: object, tensor: str, memory: int, size: int, alignment: int, stream: int
    ) -> int:
        found = self._library.call_reallocate_async(
            self.on_thread, self.address(allocator), tensor.encode(), memory, size, alignment, stream
        )
        return int(found or 0)

    def notify_shape(self, allocator: object, tensor: str, shape: tuple[int, ...] | None) -> None:
        """None is a shape that TensorRT does not know: it has -1 dimensions."""
        count = -1 if shape is None else len(shape)
        extents = (c_int64 * 8)(*(shape or ()))
        self._library.call_notify_shape(self.on_thread, self.address(allocator), tensor.encode(), count, extents)
