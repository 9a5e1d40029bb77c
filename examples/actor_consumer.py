"""A consumer that is a pykka actor: it asks without waiting, and the outcome comes as a message in its own mailbox.

    python examples/actor_consumer.py MODEL.onnx

Any ONNX model with fixed shapes will do.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pykka

from actors import InferenceClient, supervise
from messages import C7Error, InferCompleted, InferRejected
from runtimes import BuildConfig, C7InferenceConfig, EngineCacheEntry, build_inference_runtime, sample_inputs


class Recogniser(pykka.ThreadingActor):
    def __init__(self, client: InferenceClient, entry: EngineCacheEntry, answered: threading.Event) -> None:
        super().__init__()
        self.client = client
        self.entry = entry
        self.answered = answered

    def on_receive(self, message: object) -> None:
        match message:
            case "frame":
                inputs = sample_inputs(self.entry)
                self.client.send(self.entry.model, inputs, within_ms=2000, reply_to=self.actor_ref)
            case InferCompleted(outputs=outputs):
                print({name: tensor.shape for name, tensor in outputs.items()})
                self.answered.set()
            case InferRejected(reason=reason, detail=detail):
                print("no result:", reason, detail)
                self.answered.set()


def main(model: Path) -> int:
    runtime = build_inference_runtime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"))
    entry = runtime.compile_engine(model, BuildConfig(precision="fp32"))
    answered = threading.Event()
    with supervise(runtime, {entry.model: entry}) as c7:
        recogniser = Recogniser.start(c7.client("recogniser"), entry, answered)
        recogniser.tell("frame")
        in_time = answered.wait(10)
        recogniser.stop()
    return 0 if in_time else 1


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])) if len(sys.argv) == 2 else __doc__)
    except C7Error as refusal:
        sys.exit(f"refused: {refusal}")
