"""A flight that names a public key: what takes off, what is refused by name, and what a flight in the air is spared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from actors.__main__ import main
from actors.demo.children import Child
from actors.demo.story import FLIES, READY
from actors.flight.accepted_manifest import ACCEPTED_NAME, AcceptedManifest, read_accepted
from actors.flight.life import Life, accept_engines, engines_for, engines_for_takeoff
from actors.flight.recovery import Recovery
from messages import C7Error, ConfigError, ManifestSignatureError, TakeoffRefusedError
from runtimes import EngineStore, FlightPlan, Generation, read_flight_plan
from runtimes.store.engine_store import format_current
from runtimes.store.signature import SIGNATURE_NAME
from runtimes.store.signed_generation import sign_generation

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WAIT_S = 60.0
GROUND = Ed25519PrivateKey.from_private_bytes(b"ground" + bytes(26))
STRANGER = Ed25519PrivateKey.from_private_bytes(b"stranger" + bytes(24))
TAKEOFF = Life(flight_id="test-000001", number=1, recovery=None)
PLAN = """
[flight]
name = "test"
public_key = "ground.pem"
[runtime]
runtime = "onnx_trt_ep"
provider = "cpu"
[models.vpr]
source = "vpr.onnx"
precision = "fp32"
deadline_ms = 5000
"""


def write_model(path: Path, training: str) -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])],
        path.stem,
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3])],
        doc_string=training,
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)


def public_pem(key: Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Aircraft(NamedTuple):
    """A flight's folder with two generations, of which the second is current; neither is signed yet."""

    folder: Path

    @property
    def plan_path(self) -> Path:
        return self.folder / "flight.toml"

    @property
    def plan(self) -> FlightPlan:
        return read_flight_plan(self.plan_path)

    @property
    def store(self) -> EngineStore:
        return EngineStore(self.folder / "engines")

    @property
    def key(self) -> Path:
        return self.folder / "ground.pem"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def sign(self, number: int, key: Ed25519PrivateKey = GROUND) -> int:
        return sign_generation(self.store, key, number=number).version

    def signature(self, number: int) -> Path:
        return self.store.path_of(number) / SIGNATURE_NAME

    def make_current(self, number: int) -> None:
        generation = self.store.generation(number)
        (self.store.root / "current").write_bytes(format_current(number, generation.manifest_sha256))

    def take_off(self) -> Generation:
        """What the flight process does before anything is loaded."""
        self.state.mkdir(exist_ok=True)
        engines = engines_for(self.plan, TAKEOFF)
        accept_engines(self.plan, engines)
        return engines.generation

    def recover(self, generation: Generation) -> Generation:
        recovery = Recovery("test-000001", 2, generation.number, generation.manifest_sha256)
        return engines_for(self.plan, Life(flight_id="test-000001", number=2, recovery=recovery)).generation


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provisioned")
    (folder / "flight.toml").write_text(PLAN)
    (folder / "ground.pem").write_bytes(public_pem(GROUND))
    for training in ("trained", "retrained"):
        write_model(folder / "vpr.onnx", training)
        assert main(["provision", str(folder / "flight.toml")]) == 0
    (folder / "vpr.onnx").unlink()  # the aircraft flies without sources: each generation fits the plan
    return folder


@pytest.fixture
def aircraft(provisioned: Path, tmp_path: Path) -> Aircraft:
    made = Aircraft(tmp_path / "aircraft")
    shutil.copytree(provisioned, made.folder)
    return made


def test_a_signed_generation_takes_off_and_its_version_is_remembered(aircraft: Aircraft) -> None:
    assert aircraft.sign(2) == 1
    generation = aircraft.take_off()
    assert generation.number == 2
    assert read_accepted(aircraft.state) == AcceptedManifest(1, generation.manifest_sha256)


def test_the_same_version_takes_off_again_and_again(aircraft: Aircraft) -> None:
    aircraft.sign(2)
    assert aircraft.take_off() == aircraft.take_off()


def test_a_higher_version_takes_off_and_is_remembered(aircraft: Aircraft) -> None:
    aircraft.sign(2)
    aircraft.take_off()
    aircraft.sign(2)
    generation = aircraft.take_off()
    assert read_accepted(aircraft.state) == AcceptedManifest(2, generation.manifest_sha256)


def leave_unsigned(aircraft: Aircraft) -> None:
    assert not aircraft.signature(2).exists()


def sign_with_another_key(aircraft: Aircraft) -> None:
    aircraft.sign(2, STRANGER)


def copy_the_signature_of_the_other_generation(aircraft: Aircraft) -> None:
    aircraft.sign(1)
    shutil.copy(aircraft.signature(1), aircraft.signature(2))


def raise_the_version_in_the_signature(aircraft: Aircraft) -> None:
    aircraft.sign(2)
    path = aircraft.signature(2)
    path.write_bytes(path.read_bytes().replace(b"version 1", b"version 2"))


def cut_the_signature_short(aircraft: Aircraft) -> None:
    aircraft.sign(2)
    path = aircraft.signature(2)
    path.write_bytes(path.read_bytes()[:-1])


def _with_files_in_another_order(manifest: bytes) -> bytes:
    """Another manifest, written as one is: it says the same, and has another hash."""
    document = msgspec.json.decode(manifest)
    document["files"].reverse()
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def swap_manifest_and_current_under_the_signature(aircraft: Aircraft) -> None:
    """Whoever may write the store can make `current` fit any manifest, but not the signature."""
    aircraft.sign(2)
    path = aircraft.store.path_of(2) / "manifest.json"
    path.write_bytes(_with_files_in_another_order(path.read_bytes()))
    aircraft.make_current(2)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (leave_unsigned, "found none"),
        (sign_with_another_key, "signed with another key"),
        (copy_the_signature_of_the_other_generation, "signs another manifest than manifest.json"),
        (raise_the_version_in_the_signature, "altered"),
        (cut_the_signature_short, "not a manifest's signature"),
        (swap_manifest_and_current_under_the_signature, "signs another manifest than manifest.json"),
    ],
)
def test_a_wrong_signature_refuses_preflight_and_takeoff_by_name(
    aircraft: Aircraft, capfd: pytest.CaptureFixture[str], wrong: Callable[[Aircraft], None], reason: str
) -> None:
    wrong(aircraft)
    for refuse in (aircraft.take_off, lambda: engines_for_takeoff(aircraft.plan)):
        with pytest.raises(ManifestSignatureError) as refused:
            refuse()
        text = str(refused.value)
        assert text.startswith(f"{aircraft.signature(2)}: ")
        assert reason in text
        assert "expected" in text
        assert "found" in text
        assert "c7 engines sign" in text
    assert read_accepted(aircraft.state) is None
    assert main(["preflight", str(aircraft.plan_path)]) == 1
    assert reason in capfd.readouterr().err


def test_an_older_version_refuses_preflight_and_takeoff_and_says_what_to_sign(aircraft: Aircraft) -> None:
    aircraft.sign(1)
    aircraft.sign(2)
    accepted = aircraft.take_off()
    aircraft.make_current(1)
    for refuse in (aircraft.take_off, lambda: engines_for_takeoff(aircraft.plan)):
        with pytest.raises(TakeoffRefusedError) as refused:
            refuse()
        text = str(refused.value)
        assert text.startswith(f"{aircraft.signature(1)}: expected a version above 2")
        assert "found version 1" in text
        assert "c7 engines sign FLIGHT.toml --key PRIVATE.pem --version 3" in text
    assert read_accepted(aircraft.state) == AcceptedManifest(2, accepted.manifest_sha256)


def test_an_operator_goes_back_by_signing_the_older_generation_again(aircraft: Aircraft) -> None:
    aircraft.sign(1)
    former = aircraft.signature(1).read_bytes()
    aircraft.sign(2)
    aircraft.take_off()
    aircraft.make_current(1)
    assert aircraft.sign(1) == 3
    generation = aircraft.take_off()
    assert generation.number == 1
    assert read_accepted(aircraft.state) == AcceptedManifest(3, generation.manifest_sha256)

    aircraft.make_current(2)
    with pytest.raises(TakeoffRefusedError, match="found version 2"):
        aircraft.take_off()
    aircraft.make_current(1)
    aircraft.signature(1).write_bytes(former)
    with pytest.raises(TakeoffRefusedError, match="found version 1"):
        aircraft.take_off()


def test_two_manifests_signed_with_one_version_are_not_both_taken(aircraft: Aircraft) -> None:
    aircraft.sign(2)
    aircraft.take_off()
    aircraft.signature(2).rename(aircraft.folder / "moved")
    assert aircraft.sign(1) == 1  # as another copy of the store would have it signed
    aircraft.make_current(1)
    with pytest.raises(TakeoffRefusedError, match="found the same version of another manifest"):
        aircraft.take_off()


def test_preflight_checks_the_signature_and_remembers_nothing(
    aircraft: Aircraft, capfd: pytest.CaptureFixture[str]
) -> None:
    aircraft.sign(2)
    assert main(["preflight", str(aircraft.plan_path)]) == 0
    assert read_accepted(aircraft.state) is None
    capfd.readouterr()


def test_a_generation_that_does_not_fit_the_plan_is_not_remembered_as_accepted(aircraft: Aircraft) -> None:
    aircraft.sign(2)
    write_model(aircraft.folder / "vpr.onnx", "trained yet again")
    with pytest.raises(TakeoffRefusedError, match="does not fit the plan"):
        aircraft.take_off()
    assert read_accepted(aircraft.state) is None


def test_a_damaged_memory_of_the_highest_version_refuses_preflight_and_takeoff(aircraft: Aircraft) -> None:
    aircraft.sign(2)
    aircraft.take_off()
    path = aircraft.state / ACCEPTED_NAME
    path.write_bytes(path.read_bytes().replace(b"version 1", b"version 0"))
    for refuse in (aircraft.take_off, lambda: engines_for_takeoff(aircraft.plan)):
        with pytest.raises(TakeoffRefusedError, match=r"accepted_manifest: damaged: .*On the ground: .*move this file"):
            refuse()
    path.rename(aircraft.folder / "moved")
    assert aircraft.take_off().number == 2


RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "cannot be read"),
        (b"garbled", "found something else"),
        (GROUND.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "found a private key"),
        (public_pem(RSA_KEY), "found one of RSA"),
    ],
    ids=["missing", "garbled", "private", "RSA"],
)
def test_a_key_file_that_is_no_public_key_refuses_by_name(
    aircraft: Aircraft, capfd: pytest.CaptureFixture[str], content: bytes | None, found: str
) -> None:
    aircraft.sign(2)
    aircraft.key.unlink()
    if content is not None:
        aircraft.key.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        aircraft.take_off()
    assert str(refused.value).startswith(f"{aircraft.key}: expected ")
    assert found in str(refused.value)
    assert main(["preflight", str(aircraft.plan_path)]) == 2
    assert found in capfd.readouterr().err


def test_a_public_key_in_the_store_authenticates_nothing_and_is_refused(aircraft: Aircraft) -> None:
    aircraft.sign(2)
    shutil.copy(aircraft.key, aircraft.store.root / "ground.pem")
    aircraft.plan_path.write_text(PLAN.replace('"ground.pem"', '"engines/ground.pem"'))
    with pytest.raises(ConfigError, match="found it in the store"):
        aircraft.take_off()


def test_without_a_public_key_no_signature_and_no_memory_is_asked_for(aircraft: Aircraft) -> None:
    aircraft.plan_path.write_text(PLAN.replace('public_key = "ground.pem"', ""))
    aircraft.state.mkdir()
    (aircraft.state / ACCEPTED_NAME).write_bytes(b"damaged")
    assert aircraft.take_off().number == 2
    assert (aircraft.state / ACCEPTED_NAME).read_bytes() == b"damaged"


@pytest.mark.parametrize(
    "lose",
    [
        lambda aircraft: (aircraft.state / ACCEPTED_NAME).write_bytes(b"damaged"),
        lambda aircraft: (aircraft.state / ACCEPTED_NAME).unlink(),
        lambda aircraft: aircraft.signature(2).unlink(),
        lambda aircraft: aircraft.signature(2).write_bytes(b"damaged"),
        lambda aircraft: aircraft.key.unlink(),
        lambda aircraft: aircraft.make_current(1),
    ],
)
def test_a_flight_in_the_air_recovers_by_the_manifest_that_it_took_off_with(
    aircraft: Aircraft, lose: Callable[[Aircraft], object]
) -> None:
    aircraft.sign(2)
    generation = aircraft.take_off()
    lose(aircraft)
    assert aircraft.recover(generation) == generation


def test_a_flight_in_the_air_takes_no_other_manifest_however_well_it_is_signed(aircraft: Aircraft) -> None:
    aircraft.sign(2)
    generation = aircraft.take_off()
    path = generation.path / "manifest.json"
    path.write_bytes(_with_files_in_another_order(path.read_bytes()))
    aircraft.make_current(2)
    aircraft.sign(2)
    with pytest.raises(C7Error, match=r"gen-000002|generation 2"):
        aircraft.recover(generation)


def test_the_real_process_takes_off_signed_recovers_without_and_refuses_unsigned(
    aircraft: Aircraft, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    aircraft.sign(2)
    fly = ["fly", str(aircraft.plan_path)]
    with Child(fly, aircraft.folder / "life1.log", awaits=FLIES) as life:
        life.wait_until_said(WAIT_S)
        assert main(["declare", "airborne", "--flight", str(aircraft.plan_path)]) == 0
        assert read_accepted(aircraft.state) is not None
        life.kill()
    (aircraft.state / ACCEPTED_NAME).write_bytes(b"damaged")
    aircraft.signature(2).unlink()
    with Child(fly, aircraft.folder / "life2.log", awaits=READY) as life:
        life.wait_until_said(WAIT_S)
        life.kill()
    with Child(fly, aircraft.folder / "life3.log", awaits=FLIES) as life:
        life.wait_until_said(WAIT_S)
        assert main(["declare", "landed", "--flight", str(aircraft.plan_path)]) == 0
        assert life.terminate(WAIT_S) == 0
    capfd.readouterr()
    assert main([*fly, "--for", "0.1"]) == 1
    assert "found none; sign it with the ground station's key" in capfd.readouterr().err


def test_a_store_whose_current_is_gone_is_not_said_to_hold_no_engines(aircraft: Aircraft) -> None:
    (aircraft.store.root / "current").unlink()
    with pytest.raises(TakeoffRefusedError, match=r"engines/current: expected it to name a generation.*rollback"):
        engines_for_takeoff(aircraft.plan)
    shutil.rmtree(aircraft.store.root)
    with pytest.raises(TakeoffRefusedError, match="holds no engines"):
        engines_for_takeoff(aircraft.plan)
