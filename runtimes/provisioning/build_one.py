"""`python -m runtimes.provisioning.build_one FD PARENT`: the child process in which one engine is built.

The request is read from stdin, the answer is written to the pipe with the number FD; PARENT is the provisioner's
process. Libraries may print what they like on stdout and stderr, run out of memory or crash: the provisioner
outlives it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Callable

import msgspec

from messages.errors import C7Error, printable
from runtimes.config import C7InferenceConfig, RuntimeName
from runtimes.host import NOT_INSTALLED, detect_host
from runtimes.inference_factory import build_inference_runtime
from runtimes.inference_runtime import HostTuple
from runtimes.provisioning.answer_stream import AnswerPipe
from runtimes.provisioning.build_request import (
    ANSWER_MAX_BYTES,
    REQUEST_MAX_BYTES,
    Answer,
    BuildEngine,
    EngineBuilt,
    ProbeRuntime,
    Request,
    RequestFailed,
    RuntimeProbed,
    decode_request,
)
from runtimes.provisioning.signed_off_build import build_signed_off, compile_folder

_LIBRARY: dict[RuntimeName, str] = {"tensorrt": "tensorrt", "onnx_trt_ep": "onnxruntime", "pytorch_fp16": "torch"}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
ERROR_MAX_CHARS = ANSWER_MAX_BYTES // 16
"""Escaped twice, here and as JSON, a character takes 11 bytes at most."""


def main(arguments: list[str]) -> int:
    answer_descriptor = int(arguments[0])
    os.set_inheritable(answer_descriptor, False)
    _die_with(int(arguments[1]))
    pipe = AnswerPipe(answer_descriptor)
    answer = answer_request(decode_request(sys.stdin.buffer.read(REQUEST_MAX_BYTES + 1)), pipe.tell)
    pipe.answer(answer)
    return 1 if isinstance(answer, RequestFailed) else 0


def answer_request(request: Request, tell: Callable[[str], None] | None = None) -> Answer:
    """Carry one request out; `tell` hears how far it is, from the library's threads.

    Typed errors become an answer; anything else ends this process, as it should.
    """
    try:
        return _probe(request) if isinstance(request, ProbeRuntime) else _build(request, tell)
    except C7Error as error:
        return RequestFailed(type(error).__name__, printable(str(error), ERROR_MAX_CHARS))


def _probe(request: ProbeRuntime) -> RuntimeProbed:
    runtime = build_inference_runtime(request.config)
    return RuntimeProbed(runtime.current_runtime_label(), _host(request.config))


def _build(request: BuildEngine, tell: Callable[[str], None] | None) -> EngineBuilt:
    config = msgspec.structs.replace(
        request.config,
        engine_dir=compile_folder(request),
        storage_room_bytes=request.room_bytes,
        timing_cache_dir=request.timing_cache,
        # What an engine takes is measured beside another one, whose block it would run in.
        tensorrt=msgspec.structs.replace(request.config.tensorrt, share_activation_memory=False),
    )
    return build_signed_off(request, build_inference_runtime(config, progress=tell), _host(config))


def _host(config: C7InferenceConfig) -> HostTuple:
    version = str(importlib.import_module(_LIBRARY[config.runtime]).__version__)
    tensorrt = version if config.runtime == "tensorrt" else NOT_INSTALLED
    return detect_host(version, device_index=config.device_index, tensorrt=tensorrt)


def _die_with(parent: int) -> None:
    """A provisioner that was killed leaves no compiler behind: its staging folder is no longer anyone's."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
