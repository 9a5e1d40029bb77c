"""One engine in fifteen lines: compile an ONNX model, load it, ask it once.

    python examples/one_engine.py MODEL.onnx

The picture is made up from the engine's own description of its inputs, so any ONNX model with fixed shapes will do.
"""

import sys
from pathlib import Path

from actors import supervise
from messages import InferCompleted, InferRejected
from runtimes import BuildConfig, C7InferenceConfig, build_inference_runtime, sample_inputs

if len(sys.argv) != 2:
    sys.exit(__doc__)
runtime = build_inference_runtime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"))
entry = runtime.compile_engine(Path(sys.argv[1]), BuildConfig(precision="fp32"))
with supervise(runtime, {entry.model: entry}) as c7:  # all loaded, or raises
    match c7.infer(entry.model, sample_inputs(entry), within_ms=2000):
        case InferCompleted(outputs=outputs, run_ns=run_ns):
            print({name: tensor.shape for name, tensor in outputs.items()}, run_ns / 1e6, "ms")
        case InferRejected(reason=reason, detail=detail):
            sys.exit(f"no result: {reason} {detail}")
