"""The airborne composition: one runtime under supervision, shared by five components that look at frames at 3 Hz.

    python examples/airborne.py [--for SECONDS] [--folder DIR]

Small models stand for the real ones, a CPU for the board. On the way the board throttles, and the engine of C3.5
crashes and is restarted. At the end stands what became of every frame and every request, counted from the recording.
Needs the extras `torch` and `demo`. The engines stay in DIR: the second flight compiles nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path
from typing import cast

from actors.airborne_bootstrap import (
    C7AirborneConfig,
    ComponentConfig,
    Config,
    build_pre_constructed,
    compose_root,
    register_airborne_strategies,
)
from actors.consumer import Consumer
from actors.demo.frames import MovingWindow
from actors.demo.model_files import write_models
from actors.demo.networks import SIZES
from actors.demo.plan import write_flight_plan
from actors.flight.frame_loop import FrameCounts, FrameLoop
from actors.perception import PoseEstimation
from messages import C7Error, ConsumerReported, MonotonicClock, ThrottleEntered, ThrottleLeft
from runtimes import EngineCacheEntry, FlightPlan, ProvisionProgress, provision, read_flight_plan
from telemetry import FlightRecorder, RecordedMessage, configure_logging, read_recording, tally_flight

RATE_HZ = 3.0
PLEASE_START_ME_AGAIN = 75
SIZE = SIZES["pytorch_fp16"]


def write_plan(folder: Path, flight_s: float) -> FlightPlan:
    """On the ground: the source models, and the thermal trace of a board that throttles on the way."""
    models = write_models(folder / "models", "pytorch_fp16")
    return read_flight_plan(write_flight_plan(folder, runtime="pytorch_fp16", models=models, flight_s=flight_s))


def configure(plan: FlightPlan, engines: Mapping[str, EngineCacheEntry], fault_at_frame: int) -> Config:
    """The binary's configuration: C7's own block, and one for each component with the engines it needs."""
    path = {model: str(entry.path) for model, entry in engines.items()}
    c7 = C7AirborneConfig(
        runtime="pytorch_fp16",
        device="cpu",
        lightglue_engine=engines["matcher"].path,
        priorities={"backbone": 10, "extractor": 20, "matcher": 30, "refiner": 40},
        thermal=plan.thermal,
    )
    place_recognition = ComponentConfig(strategy="place_recognition", options={"engine": path["backbone"]})
    reranker = ComponentConfig(
        strategy="reranker",
        options={
            "extractor": path["extractor"],
            "keypoints": SIZE.rerank_keypoints,
            "tile_source": "actors.demo.frames:MapTiles",
        },
    )
    matcher = ComponentConfig(
        strategy="matcher", options={"extractor": path["extractor"], "keypoints": SIZE.match_keypoints}
    )
    refiner = ComponentConfig(  # this project's own, but for one request that crashes its engine
        strategy="actors.demo.planned_fault:FaultyRefiner",
        options={
            "engine": path["refiner"],
            "viewpoints": SIZE.refiner.viewpoints,
            "every_frames": 1,
            "fault_at_frame": fault_at_frame,
        },
    )
    return Config(
        components={
            "c7_inference": c7,
            "c2_vpr": place_recognition,
            "c2_5_rerank": reranker,
            "c3_matcher": matcher,
            "c3_5_adhop": refiner,
            "c4_pose": ComponentConfig(strategy="pose"),
        }
    )


def fly(config: Config, flight_s: float, recorder: FlightRecorder, restart_needed: threading.Event) -> FrameCounts:
    """Build the runtime, compose the components, drive them; every engine is loaded before the first frame."""
    register_airborne_strategies()
    pre_constructed = build_pre_constructed(
        config, record=recorder.record, on_restart_needed=lambda _reason: restart_needed.set()
    )
    try:
        components = cast("dict[str, Consumer]", compose_root(config, pre_constructed))
        pose = cast("PoseEstimation", components["c4_pose"])
        covariance: list[str] = []

        def report(reported: ConsumerReported) -> None:
            recorder.record(reported)
            if reported.consumer == "c4_pose":
                covariance.append(pose.covariance_mode)

        loop = FrameLoop(MovingWindow(), components, RATE_HZ, MonotonicClock(), report)
        loop.start()  # sets a frame_scope around each on_frame: one deadline for all calls of one frame
        with suppress(KeyboardInterrupt):  # Ctrl-C lands
            restart_needed.wait(flight_s)
        loop.stop(timeout_s=5.0)
        print("c4_pose:", ", then ".join(f"{len(list(same))} frames {mode}" for mode, same in groupby(covariance)))
        return loop.counts
    finally:
        pre_constructed["c7_supervision"].stop()


def account(recorded: list[RecordedMessage], counts: FrameCounts) -> bool:
    """Print what became of every frame and every request. Whether the sums hold."""
    messages = [each.message for each in recorded]
    entered = sum(isinstance(message, ThrottleEntered) for message in messages)
    left = sum(isinstance(message, ThrottleLeft) for message in messages)
    print(f"throttle: entered {entered}, left {left}")
    print(f"frames: {counts.read} read, {counts.failed} failed, {counts.skipped} skipped")
    holds = True
    for consumer, missed in counts.missed.items():
        reports = [each for each in messages if isinstance(each, ConsumerReported) and each.consumer == consumer]
        degraded = [report for report in reports if not report.good]
        print(f"{consumer}: {len(reports) - len(degraded)} good, {len(degraded)} degraded, {missed} missed")
        if degraded:
            print(f"  frame {degraded[0].frame_id} was the first: {degraded[0].detail}")
        holds &= len(reports) + missed == counts.read
    for row in tally_flight([recorded]).values():
        outcomes = [f"{row.completed} completed", *(f"{count} {reason}" for reason, count in row.rejected.items())]
        print(f"{row.model}: {row.submitted} submitted = {' + '.join(outcomes)}; restarts {row.restarts}")
        holds &= row.conserved and not row.lost
    return holds


def seconds(text: str) -> float:
    flight_s = float(text)
    if not 1.0 <= flight_s <= 3600.0:
        raise argparse.ArgumentTypeError(f"expected 1 to 3600 seconds, found {text}")
    return flight_s


def say(progress: ProvisionProgress) -> None:
    if progress.step in {"decided", "failed"}:
        print(f"provision {progress.model}: {progress.decision} {progress.reason}")


def main(flight_s: float, folder: Path) -> int:
    restart_needed = threading.Event()  # only a new process can run engines again, say after a fault of the device
    try:
        plan = write_plan(folder, flight_s)
        engines = provision(plan, progress=say).entries
        recording = folder / f"flight-{len(list(folder.glob('*.mcap'))) + 1:03}.mcap"
        config = configure(plan, engines, fault_at_frame=int(flight_s * RATE_HZ / 2))
        with FlightRecorder(recording) as recorder, closing(configure_logging(level="INFO", recorder=recorder)):
            counts = fly(config, flight_s, recorder, restart_needed)
    except C7Error as refusal:
        print("no flight:", refusal)
        return 1
    holds = account(list(read_recording(recording)), counts) and not recorder.dropped
    print("every frame and every request is accounted for" if holds else "THE SUMS DO NOT HOLD", f"({recording})")
    return PLEASE_START_ME_AGAIN if restart_needed.is_set() else 0 if holds else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--for", dest="flight_s", type=seconds, default=60.0, metavar="SECONDS")
    parser.add_argument("--folder", type=Path, default=Path("airborne-flight"), metavar="DIR")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # lands as Ctrl-C does
    try:
        sys.exit(main(**vars(parser.parse_args())))
    except KeyboardInterrupt:
        sys.exit("ended before the flight began, or while it landed")
