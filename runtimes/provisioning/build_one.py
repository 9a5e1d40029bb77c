"""`python -m runtimes.provisioning.build_one FD PARENT`: the child process in which one engine is compiled.

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

import msgspec

from messages.errors import C7Error, EngineBuildError
from runtimes.config import RuntimeName
from runtimes.host import detect_host
from runtimes.inference_factory import build_inference_runtime
from runtimes.provisioning.build_request import (
    REQUEST_MAX_BYTES,
    Answer,
    BuildEngine,
    EngineBuilt,
    ProbeRuntime,
    Request,
    RequestFailed,
    RuntimeProbed,
    decode_request,
    encode,
)

_LIBRARY: dict[RuntimeName, str] = {"tensorrt": "tensorrt", "onnx_trt_ep": "onnxruntime", "pytorch_fp16": "torch"}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> int:
    answer_descriptor = int(arguments[0])
    os.set_inheritable(answer_descriptor, False)
    _die_with(int(arguments[1]))
    answer = answer_request(decode_request(sys.stdin.buffer.read(REQUEST_MAX_BYTES + 1)))
    with open(answer_descriptor, "wb") as pipe:
        pipe.write(encode(answer))
    return 1 if isinstance(answer, RequestFailed) else 0


def answer_request(request: Request) -> Answer:
    """Carry one request out. Typed errors become an answer; anything else ends this process, as it should."""
    try:
        return _probe(request) if isinstance(request, ProbeRuntime) else _build(request)
    except C7Error as error:
        return RequestFailed(type(error).__name__, str(error))


def _probe(request: ProbeRuntime) -> RuntimeProbed:
    config = request.config
    runtime = build_inference_runtime(config)
    version = str(importlib.import_module(_LIBRARY[config.runtime]).__version__)
    return RuntimeProbed(runtime.current_runtime_label(), detect_host(version, device_index=config.device_index))


def _build(request: BuildEngine) -> EngineBuilt:
    runtime = build_inference_runtime(msgspec.structs.replace(request.config, engine_dir=request.directory))
    # A runtime names the engine after its source; the plan's name for the model may be another.
    named = request.scratch / f"{request.model}{request.source.suffix}"
    named.symlink_to(request.source)
    try:
        entry = runtime.compile_engine(named, request.build_config)
    except C7Error as error:
        raise type(error)(str(error).replace(str(named), str(request.source))) from error
    if entry.source_sha256 != request.source_sha256:
        raise EngineBuildError(
            f"{request.source}: the source changed while it was provisioned: expected sha256"
            f" {request.source_sha256}, found {entry.source_sha256}; provision again once it is complete"
        )
    return EngineBuilt(entry.path.name)


def _die_with(parent: int) -> None:
    """A provisioner that was killed leaves no compiler behind: its staging folder is no longer anyone's."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
