"""Which runtimes can run on this machine, found by constructing each one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec

from messages.errors import C7Error
from runtimes.config import C7InferenceConfig
from runtimes.provisioning.build_child import PROBE_TIMEOUT_S, probe_runtime

CONFIGURATIONS: dict[str, C7InferenceConfig] = {
    "tensorrt": C7InferenceConfig(runtime="tensorrt", device="cuda"),
    "onnx_trt_ep[tensorrt]": C7InferenceConfig(runtime="onnx_trt_ep", provider="tensorrt", device="cuda"),
    "onnx_trt_ep[cuda]": C7InferenceConfig(runtime="onnx_trt_ep", provider="cuda", device="cuda"),
    "onnx_trt_ep[cpu]": C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"),
    "pytorch_fp16[cuda]": C7InferenceConfig(runtime="pytorch_fp16", device="cuda"),
    "pytorch_fp16[cpu]": C7InferenceConfig(runtime="pytorch_fp16", device="cpu"),
}
_PROBES_AT_ONCE = 2


class RuntimeAvailability(msgspec.Struct, frozen=True):
    """`detail` is the version of the runtime's library where it is available, and why not where it is not."""

    label: str
    available: bool
    detail: str


def doctor_runtimes(*, timeout_s: float = PROBE_TIMEOUT_S) -> list[RuntimeAvailability]:
    """Try every runtime, each in a child process of its own: it may print, hang or crash there."""
    with ThreadPoolExecutor(_PROBES_AT_ONCE, thread_name_prefix="doctor") as pool:
        return list(pool.map(lambda label: _examine(label, timeout_s), CONFIGURATIONS))


def _examine(label: str, timeout_s: float) -> RuntimeAvailability:
    try:
        probed = probe_runtime(CONFIGURATIONS[label], timeout_s=timeout_s)
    except C7Error as error:
        return RuntimeAvailability(label, available=False, detail=str(error))
    return RuntimeAvailability(probed.label, available=True, detail=probed.host.runtime_version)
