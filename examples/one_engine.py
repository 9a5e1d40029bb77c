"""One engine in fifteen lines: compile an ONNX model, load it, ask it once.

    python examples/one_engine.py MODEL.onnx

The picture is made up from the engine's own description of its inputs, so any ONNX model with fixed shapes will do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from actors import supervise
from messages import InferCompleted, InferRejected
from runtimes import BuildConfig, C7InferenceConfig, build_inference_runtime, sample_inputs


def main(model: Path) -> int:
    runtime = build_inference_runtime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"))
    entry = runtime.compile_engine(model, BuildConfig(precision="fp32"))
    with supervise(runtime, {entry.model: entry}) as c7:  # all loaded, or raises
        match c7.infer(entry.model, sample_inputs(entry), within_ms=2000):
            case InferCompleted(outputs=outputs, run_ns=run_ns):
                print({name: tensor.shape for name, tensor in outputs.items()}, run_ns / 1e6, "ms")
                return 0
            case InferRejected(reason=reason, detail=detail):
                print("no result:", reason, detail)
                return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) if len(sys.argv) == 2 else __doc__)
