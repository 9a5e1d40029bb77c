"""`c7 engines sign` and `verify` as an operator meets them: from a plan or a folder, with exit codes and documents."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from actors.__main__ import main
from messages import TensorSpec
from runtimes.fake_runtime import FAKE_HOST
from runtimes.inference_runtime import BuildConfig
from runtimes.source_model import SourceModel
from runtimes.store.engine_store import EngineStore
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.staged_generation import stage_generation

PLAN = """
[flight]
name = "test"
store = "stored"
{public_key}
[runtime]
runtime = "onnx_trt_ep"
provider = "cpu"
[models.vpr]
source = "vpr.onnx"
precision = "fp32"
deadline_ms = 200
"""


class Ground(NamedTuple):
    """A flight's folder and the ground station's keys."""

    folder: Path
    plan: Path
    private: Path
    public: Path

    @property
    def store(self) -> EngineStore:
        return EngineStore(self.folder / "stored")


def write_keys(folder: Path, name: str, seed: bytes) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.from_private_bytes(seed.ljust(32))
    private, public = folder / f"{name}.private.pem", folder / f"{name}.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    private, public = write_keys(tmp_path, "ground", b"ground")
    plan = tmp_path / "flight.toml"
    plan.write_text(PLAN.format(public_key='public_key = "ground.pem"'))
    made = Ground(tmp_path, plan, private, public)
    with stage_generation(made.store) as staged:
        write_engine(
            staged.directory,
            "vpr",
            SourceModel(Path("vpr.onnx"), b"source", sha256_of(b"source")),
            BuiltEngine(data=b"engine", inputs={"x": TensorSpec((1,), "float32")}, outputs={}, build_tool="test"),
            BuildConfig(precision="fp32"),
            "onnx_trt_ep[cpu]",
            FAKE_HOST,
            1,
        )
        staged.commit()
    return made


def engine_of(ground: Ground) -> Path:
    [path] = ground.store.path_of(1).glob("*.engine")
    return path


def test_sign_and_verify_from_the_plan(ground: Ground, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", "sign", str(ground.plan), "--key", str(ground.private)]) == 0
    told = capfd.readouterr().out
    assert "generation 1 is signed: version 1; every file of it was hashed and is whole" in told
    assert str(ground.store.path_of(1) / "manifest.sig") in told
    assert main(["engines", "verify", str(ground.plan)]) == 0
    told = capfd.readouterr().out
    assert "version 1, by the key" in told
    assert "the store is whole" in told


def test_sign_and_verify_from_the_stores_folder_as_documents(ground: Ground, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [str(ground.store.root), "--key", str(ground.private), "--version", "5", "--generation", "1", "--json"]
    assert main(["engines", "sign", *arguments]) == 0
    signed = json.loads(capfd.readouterr().out)
    assert (signed["generation"], signed["version"], signed["manifest_only"]) == (1, 5, False)
    assert signed["manifest_sha256"] == ground.store.generation(1).manifest_sha256
    assert main(["engines", "verify", str(ground.store.root), "--key", str(ground.public), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["ok"] is True
    assert document["current"] == 1
    assert document["key"] == signed["key"]
    assert document["generations"][0]["signature"] == "verified"
    assert document["generations"][0]["version"] == 5


def test_a_bare_folder_names_no_key_and_verify_says_so(ground: Ground, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", "sign", str(ground.plan), "--key", str(ground.private)]) == 0
    capfd.readouterr()
    assert main(["engines", "verify", str(ground.store.root)]) == 0
    assert "compared with none" in capfd.readouterr().out


def test_an_unsigned_store_fails_for_a_plan_with_a_key_and_is_whole_for_one_without(
    ground: Ground, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["engines", "verify", str(ground.plan)]) == 1
    told = capfd.readouterr().out
    assert "unsigned" in told
    assert "expected a signature by the key" in told
    ground.plan.write_text(PLAN.format(public_key=""))
    assert main(["engines", "verify", str(ground.plan)]) == 0


def test_a_damaged_engine_is_exit_code_1_and_named(ground: Ground, capfd: pytest.CaptureFixture[str]) -> None:
    engine_of(ground).write_bytes(b"enjine")
    assert main(["engines", "verify", str(ground.store.root), "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    assert document["ok"] is False
    [problem] = document["generations"][0]["problems"].values()
    assert f"{engine_of(ground)}: content altered: expected sha256" in problem
    assert main(["engines", "verify", str(ground.store.root)]) == 1
    told = capfd.readouterr().out
    assert "damaged: 1" in told
    assert engine_of(ground).name in told
    assert main(["engines", "sign", str(ground.plan), "--key", str(ground.private)]) == 1
    assert "was not signed" in capfd.readouterr().err
    arguments = [str(ground.plan), "--key", str(ground.private), "--manifest-only"]
    assert main(["engines", "sign", *arguments]) == 0
    assert "the engines were not looked at" in capfd.readouterr().out


def test_a_store_that_another_key_signed_is_exit_code_1(ground: Ground, capfd: pytest.CaptureFixture[str]) -> None:
    private, _ = write_keys(ground.folder, "stranger", b"stranger")
    assert main(["engines", "sign", str(ground.plan), "--key", str(private)]) == 0
    capfd.readouterr()
    assert main(["engines", "verify", str(ground.plan)]) == 1
    assert "by another key" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["sign", "{plan}", "--key", "{folder}/nowhere.pem"], "nowhere.pem: expected a PEM file"),
        (["sign", "{plan}", "--key", "{public}"], "found a public key"),
        (["sign", "{plan}"], "Missing option '--key'"),
        (["sign", "{plan}", "--key", "{private}", "--version", "0"], "0 is not in the range"),
        (["verify", "{plan}", "--key", "{private}"], "found a private key, which never boards"),
        (["verify", "{plan}", "--key", "{plan}"], "found something else"),
        (["verify", "{folder}/nowhere.toml"], "nowhere.toml"),
        (["verify", "{folder}/stored/gen-000001"], "found one of its generations; try"),
        (["verify"], "Missing argument 'PLACE'"),
        ([], "Usage: c7 engines"),
    ],
)
def test_unusable_input_is_exit_code_2_and_named(
    ground: Ground, capfd: pytest.CaptureFixture[str], arguments: list[str], found: str
) -> None:
    assert main(["engines", *(each.format(**ground._asdict()) for each in arguments)]) == 2
    assert found in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["verify", "{folder}/empty"], "expected a store of engines, found none"),
        (["sign", "{plan}", "--key", "{private}", "--generation", "7"], "gen-000007"),
        (["sign", "{plan}", "--key", "{private}", "--generation", "1", "--version", "3"], "above 3"),
    ],
)
def test_what_the_store_refuses_is_exit_code_1_and_one_document(
    ground: Ground, capfd: pytest.CaptureFixture[str], arguments: list[str], found: str
) -> None:
    (ground.folder / "empty").mkdir()
    assert main(["engines", "sign", str(ground.plan), "--key", str(ground.private), "--version", "3"]) == 0
    capfd.readouterr()
    assert main(["engines", *(each.format(**ground._asdict()) for each in arguments), "--json"]) == 1
    streams = capfd.readouterr()
    assert found in streams.err
    assert found in json.loads(streams.out)["error"]


def test_on_a_terminal_the_progress_is_gone_at_the_end(
    ground: Ground, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    ground.plan.write_text(PLAN.format(public_key=""))
    assert main(["engines", "verify", str(ground.plan)]) == 0
    told = capfd.readouterr().out
    assert "hashing generation 1: " in told
    assert told.rstrip().endswith("the store is whole")


def test_a_private_key_in_the_store_signs_nothing(ground: Ground, capfd: pytest.CaptureFixture[str]) -> None:
    inside = ground.private.rename(ground.store.root / "ground.private.pem")
    assert main(["engines", "sign", str(ground.plan), "--key", str(inside)]) == 2
    assert "expected the private key elsewhere, found it in the store" in capfd.readouterr().err
    assert not (ground.store.path_of(1) / "manifest.sig").exists()


def test_importing_the_command_imports_no_cryptography() -> None:
    code = "import sys, actors.__main__; sys.exit(any(name.startswith('cryptography') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0  # noqa: S603


def test_a_generation_that_only_lacks_its_signature_is_refused_and_not_called_damaged(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["engines", "verify", str(ground.plan)]) == 1
    out = capsys.readouterr().out
    assert "REFUSED  " in out
    assert "manifest.sig: expected a signature by the key" in out
    assert "DAMAGED" not in out
    (ground.store.path_of(1) / "manifest.sig").write_bytes(b"rubbish")
    assert main(["engines", "verify", str(ground.plan)]) == 1
    assert "DAMAGED  " in capsys.readouterr().out


def test_a_version_that_no_signature_can_carry_is_wrong_usage(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("0", "1000000000000", "99999999999999999999"):
        assert main(["engines", "sign", str(ground.plan), "--key", str(ground.private), "--version", version]) == 2
        assert "is not in the range 1<=x<=999999999999" in capsys.readouterr().err


def test_the_folder_of_a_plan_is_not_taken_for_its_store(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("list", "verify", "rollback"):
        assert main(["engines", command, str(ground.folder)]) == 2
        assert f"found a folder with a plan; try {ground.plan}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["list"], ["verify"], ["rollback"], ["sign", "--key", "ground.pem"]])
def test_an_empty_place_is_wrong_usage_and_not_the_folder_at_hand(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["engines", *command, ""]) == 2
    assert "got an empty text" in capsys.readouterr().err
