"""Ten thousand flipped bits and every truncation in each file that a takeoff trusts: none is accepted.

The engine is a real one, of the demonstration's refinement network, provisioned for ONNX Runtime on the CPU, with
known answers, a calibration cache and a signature. A takeoff is judged by everything it reads before a library sees a
byte: `current`, manifest, signature, the highest version accepted before, metadata, sidecar, engine and known answers.
The calibration cache is not flown: it is judged by what provisioning reads before it offers it to a build.

`make chaos` flips 10,000 bits a kind (C7_CHAOS_FLIPS); C7_CHAOS_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from actors.__main__ import main
from actors.demo.networks import SIZES
from actors.demo.refiner import refiner
from actors.flight.accepted_manifest import ACCEPTED_NAME
from actors.flight.life import Life, accept_engines, engines_for, engines_for_takeoff
from messages import C7Error
from runtimes import EngineStore, FlightPlan, read_flight_plan, write_engine
from runtimes.source_model import SourceModel
from runtimes.store.engine_artifact import (
    calibration_path,
    metadata_path,
    read_calibration,
    read_self_test,
    read_verified,
    self_test_path,
)
from runtimes.store.engine_writer import BuiltEngine, sign_off
from runtimes.store.sha256_sidecar import Sha256Sidecar
from runtimes.store.signature import SIGNATURE_NAME
from runtimes.store.signed_generation import sign_generation
from runtimes.store.staged_generation import stage_generation

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SEED = int(os.environ.get("C7_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
FLIPS = int(os.environ.get("C7_CHAOS_FLIPS", "10000"))
FEW_FLIPS, FEW_TRUNCATIONS = 150, 30
EVERY_TRUNCATION_MAX_BYTES = 16 * 1024
"""Of a larger file as many random lengths are tried as bits are flipped."""

GROUND = Ed25519PrivateKey.from_private_bytes(b"ground" + bytes(26))
PLAN = """
[flight]
name = "test"
public_key = "ground.pem"
[runtime]
runtime = "onnx_trt_ep"
provider = "cpu"
[models.refiner]
source = "refiner.onnx"
precision = "fp32"
deadline_ms = 5000
"""
CALIBRATION = b"TRT-100300-EntropyCalibration2\n" + b"".join(b"tensor_%d: 3c%06x\n" % (n, n) for n in range(60))
KINDS = (
    "current",
    "manifest",
    "signature",
    "accepted_manifest",
    "metadata",
    "sidecar",
    "engine",
    "known answers",
    "calibration cache",
)


class Aircraft(NamedTuple):
    """A signed flight that has taken off once, and the file of each kind."""

    plan_path: Path
    plan: FlightPlan
    files: dict[str, Path]


class Tally(NamedTuple):
    """What became of damaged files: `accepted`, `other_errors` and `unnamed` list those that should be empty."""

    tried: int
    accepted: list[str]
    other_errors: list[str]
    unnamed: list[str]

    def failures(self) -> list[str]:
        return [*self.accepted, *self.other_errors, *self.unnamed]


@pytest.fixture(scope="module")
def aircraft(tmp_path_factory: pytest.TempPathFactory) -> Aircraft:
    folder = tmp_path_factory.mktemp("aircraft")
    plan_path = folder / "flight.toml"
    plan_path.write_text(PLAN)
    key = GROUND.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "ground.pem").write_bytes(key)
    (folder / "refiner.onnx").write_bytes(refiner(SIZES["onnx_trt_ep"].refiner).SerializeToString())
    assert main(["provision", str(plan_path)]) == 0
    plan = read_flight_plan(plan_path)
    add_calibration_cache(EngineStore(plan.flight.store), folder / "refiner.onnx")
    (folder / "refiner.onnx").unlink()  # as on an aircraft: or each takeoff would hash the source too
    sign_generation(EngineStore(plan.flight.store), GROUND)
    plan.flight.state.mkdir()
    engines = engines_for(plan, Life(flight_id="test-000001", number=1, recovery=None))
    accept_engines(plan, engines)
    generation, entries = engines.generation, engines.entries
    engine = entries["refiner"].path
    paths = (
        plan.flight.store / "current",
        generation.path / "manifest.json",
        generation.path / SIGNATURE_NAME,
        plan.flight.state / ACCEPTED_NAME,
        metadata_path(engine),
        Sha256Sidecar.path_for(engine),
        engine,
        self_test_path(engine),
        calibration_path(engine),
    )
    return Aircraft(plan_path, plan, dict(zip(KINDS, paths, strict=True)))


def add_calibration_cache(store: EngineStore, source: Path) -> None:
    """Commit the same engine again with a calibration cache beside it, as a build for int8 leaves one."""
    former = store.current()
    assert former is not None
    entry = former.entries["refiner"]
    assert entry.memory is not None
    with stage_generation(store) as staged:
        written = write_engine(
            staged.directory,
            entry.model,
            SourceModel(source, source.read_bytes(), entry.source_sha256),
            BuiltEngine(
                data=read_verified(entry),
                inputs=entry.inputs,
                outputs=entry.outputs,
                build_tool=entry.build_tool,
                calibration_cache=CALIBRATION,
            ),
            entry.build_config,
            entry.runtime_label,
            entry.host,
            entry.build_ns,
        )
        answers = read_self_test(entry)
        assert answers is not None
        sign_off(written, self_test=answers, power=entry.power, memory=entry.memory, accuracy=entry.accuracy)
        staged.commit()


def judge(aircraft: Aircraft, kind: str) -> None:
    """Read what a takeoff reads; for the calibration cache, what provisioning reads of it."""
    entries = engines_for_takeoff(aircraft.plan).entries
    for entry in entries.values():
        if kind == "calibration cache":
            assert read_calibration(entry) is not None
        else:
            read_verified(entry)
            assert read_self_test(entry) is not None


def flips(random_: random.Random, size_bytes: int, count: int) -> Iterator[tuple[str, Callable[[int], None]]]:
    """What is done to a file, in words and by its descriptor: one bit, anywhere."""
    for _ in range(count):
        place, bit = divmod(random_.randrange(size_bytes * 8), 8)

        def flip(descriptor: int, place: int = place, bit: int = bit) -> None:
            [byte] = os.pread(descriptor, 1, place)
            os.pwrite(descriptor, bytes([byte ^ 1 << bit]), place)

        yield f"bit {bit} of byte {place}", flip


def truncations(lengths: Iterable[int]) -> Iterator[tuple[str, Callable[[int], None]]]:
    for length in lengths:

        def cut(descriptor: int, length: int = length) -> None:
            os.ftruncate(descriptor, length)

        yield f"cut to {length} bytes", cut


def damage(aircraft: Aircraft, kind: str, damages: Iterable[tuple[str, Callable[[int], None]]]) -> Tally:
    """Do each of `damages` to the file, judge, and undo it."""
    path = aircraft.files[kind]
    whole = path.read_bytes()
    tally = Tally(0, [], [], [])
    tried = 0
    descriptor = os.open(path, os.O_RDWR)
    try:
        for what, alter in damages:
            tried += 1
            alter(descriptor)
            try:
                judge(aircraft, kind)
                tally.accepted.append(f"{kind}: accepted with {what}")
            except C7Error as error:
                if path.name not in str(error):
                    tally.unnamed.append(f"{kind}, {what}: expected {path.name} to be named, found {error}")
            except Exception as error:  # noqa: BLE001 - a traceback is what is looked for
                tally.other_errors.append(f"{kind}, {what}: {type(error).__name__}: {error}")
            os.pwrite(descriptor, whole, 0)
    finally:
        os.close(descriptor)
    assert path.read_bytes() == whole
    judge(aircraft, kind)
    return tally._replace(tried=tried)


def check(aircraft: Aircraft, kind: str, seed: int, flip_count: int, truncation_count: int | None) -> None:
    """Flip and cut one kind of file, print the figures, and fail for whatever got through."""
    random_ = random.Random(f"{seed} {kind}")
    size_bytes = aircraft.files[kind].stat().st_size
    flipped = damage(aircraft, kind, flips(random_, size_bytes, flip_count))
    if truncation_count is not None:
        lengths: Iterable[int] = (random_.randrange(size_bytes) for _ in range(truncation_count))
    elif size_bytes <= EVERY_TRUNCATION_MAX_BYTES:
        lengths = range(size_bytes)
    else:
        lengths = (random_.randrange(size_bytes) for _ in range(flip_count))
    cut = damage(aircraft, kind, truncations(lengths))
    failures = [*flipped.failures(), *cut.failures()]
    print(
        f"{kind}: {size_bytes} bytes, C7_CHAOS_SEED={seed}: {flipped.tried} flips, {cut.tried} truncations:"
        f" {len(flipped.accepted) + len(cut.accepted)} accepted,"
        f" {len(flipped.other_errors) + len(cut.other_errors)} other errors,"
        f" {len(flipped.unnamed) + len(cut.unnamed)} without the file's name"
    )
    assert failures == [], "\n".join(failures[:20])


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_flipped_bits_and_truncations_are_refused_by_name(aircraft: Aircraft, kind: str) -> None:
    check(aircraft, kind, 7, FEW_FLIPS, FEW_TRUNCATIONS)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_and_no_truncation_is_accepted(aircraft: Aircraft, kind: str) -> None:
    check(aircraft, kind, SEED, FLIPS, None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_what_the_commands_say_too(
    aircraft: Aircraft, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = aircraft.files[kind]
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :])
    command = "verify" if kind == "calibration cache" else "preflight"  # that cache does not fly
    arguments = ["engines", "verify"] if command == "verify" else ["preflight"]
    try:
        assert main([*arguments, str(aircraft.plan_path)]) == 1
        streams = capfd.readouterr()
        assert path.name in streams.out + streams.err
        assert "Traceback" not in streams.err
    finally:
        path.write_bytes(whole)


def test_whole_files_are_accepted_by_the_commands_too(aircraft: Aircraft, capfd: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS:
        judge(aircraft, kind)
    for arguments in (["preflight"], ["engines", "verify"]):
        assert main([*arguments, str(aircraft.plan_path)]) == 0
    assert "refiner" in capfd.readouterr().out
    assert msgspec.json.decode(aircraft.files["metadata"].read_bytes())["calibration_sha256"] is not None
