"""What a provisioner asks of its child process, and what the child answers: one JSON document each way."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Union

import msgspec

from messages.errors import (
    C7Error,
    CalibrationCacheError,
    ConfigError,
    CorruptEngineError,
    EngineBuildError,
    EngineDeserializeError,
    EngineStoreError,
    OutOfMemoryError,
    RuntimeNotAvailableError,
)
from messages.lifecycle import Sha256
from messages.tensor import Name
from runtimes.config import C7InferenceConfig
from runtimes.inference_runtime import BuildConfig, HostTuple
from runtimes.path_text import decode_path, encode_path
from runtimes.sign_off.self_test import SELF_TEST_TOLERANCE

REQUEST_MAX_BYTES: Final = 1024 * 1024
ANSWER_MAX_BYTES: Final = 64 * 1024


class ProbeRuntime(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Construct the runtime, and say what it is bound to."""

    config: C7InferenceConfig


class BuildEngine(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, kw_only=True):
    """Compile `source` for `model`, load it, find out what it takes and gives, and put it into `directory`.

    Paths are absolute; `scratch` is empty and on the file system of `directory`. `samples`, `accuracy_tolerance` and
    `self_test_tolerance` are the plan's. `room_bytes` is what the storage budget has left. `calibration_cache` is the
    one of a former build, to be used where it can be trusted. `timing_cache` is a folder of this build's own with what
    former builds timed; what it leaves there is kept.
    """

    config: C7InferenceConfig
    model: Name
    source: Path
    source_sha256: Sha256
    build_config: BuildConfig
    directory: Path
    scratch: Path
    samples: Path | None = None
    accuracy_tolerance: float | None = None
    self_test_tolerance: float = SELF_TEST_TOLERANCE
    room_bytes: int | None = None
    calibration_cache: Path | None = None
    timing_cache: Path | None = None


class RuntimeProbed(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The runtime can run here."""

    label: str
    host: HostTuple


class EngineBuilt(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The engine lies in the directory under this name, signed off, with all that belongs to it.

    `no_accuracy_because` says why no accuracy was recorded, where none was.
    """

    engine: str
    no_accuracy_because: str = ""


class RequestFailed(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The typed error that the child ended with."""

    kind: str
    text: str

    def error(self) -> C7Error:
        return _ERRORS.get(self.kind, EngineBuildError)(self.text)


Request = Union[ProbeRuntime, BuildEngine]
Answer = Union[RuntimeProbed, EngineBuilt, RequestFailed]

_ERRORS: dict[str, type[C7Error]] = {
    kind.__name__: kind
    for kind in (
        CalibrationCacheError,
        ConfigError,
        CorruptEngineError,
        EngineBuildError,
        EngineDeserializeError,
        EngineStoreError,
        OutOfMemoryError,
        RuntimeNotAvailableError,
    )
}


def encode(document: Request | Answer) -> bytes:
    return msgspec.json.encode(document, enc_hook=encode_path)


def decode_request(data: bytes) -> Request:
    """Raises msgspec.DecodeError."""
    request: Request = msgspec.json.decode(data, type=Request, dec_hook=decode_path)
    return request


def decode_answer(data: bytes) -> Answer:
    """Raises msgspec.DecodeError."""
    answer: Answer = msgspec.json.decode(data, type=Answer, dec_hook=decode_path)
    return answer
