"""docs/security.md: its commands run, in the page's order, on a real store, and its refusals are the program's."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from actors.__main__ import main
from actors.flight.accepted_manifest import AcceptedManifest, read_accepted
from actors.flight.life import Life, accept_engines, engines_for
from messages import C7Error
from runtimes import EngineStore, read_flight_plan
from runtimes.store.signature import read_signature

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PAGE = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
TAKEOFF = Life(flight_id="test-000001", number=1, recovery=None)
PLAN = """
[runtime]
runtime = "onnx_trt_ep"
provider = "cpu"
[models.vpr]
source = "vpr.onnx"
precision = "fp32"
deadline_ms = 5000
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run(block: str) -> None:
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        if program == "c7":
            assert main(arguments) == 0, line
        else:
            assert program in ("openssl", "chmod"), line
            subprocess.run([program, *arguments], check=True, timeout=60)  # noqa: S603 - our own page


def provision(training: str) -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])],
        "vpr",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3])],
        doc_string=training,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, "vpr.onnx")
    assert main(["provision", "flight.toml"]) == 0


def take_off() -> int:
    """What `c7 fly` accepts before anything is loaded; the generation's number."""
    plan = read_flight_plan(Path("flight.toml"))
    plan.flight.state.mkdir(exist_ok=True)
    engines = engines_for(plan, TAKEOFF)
    accept_engines(plan, engines)
    return engines.generation.number


@pytest.fixture
def flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A flight's folder with two generations; its plan names the key as the page says."""
    monkeypatch.chdir(tmp_path)
    [table] = blocks("toml")
    Path("flight.toml").write_text(table + 'name = "test"\n' + PLAN)
    for training in ("trained", "retrained"):
        provision(training)
    Path("vpr.onnx").unlink()
    return tmp_path


def test_every_command_of_the_page_does_what_the_page_says(flight: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys, sign, manifest_only, on_the_aircraft, back, anew = blocks("sh")
    run(keys)
    assert (flight / "ground.private.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(C7Error, match="found none"):
        take_off()
    run(sign)
    assert "version 1, by the key" in capfd.readouterr().out
    run(manifest_only)
    assert "the engines were not looked at" in capfd.readouterr().out
    run(on_the_aircraft)
    assert take_off() == 2

    rollback, sign_again = back.splitlines()
    run(rollback)
    with pytest.raises(C7Error, match="found none"):
        take_off()
    run(sign_again)
    assert take_off() == 1
    run(anew)
    assert take_off() == 1
    accepted = read_accepted(flight / "state")
    store = EngineStore(flight / "engines")
    assert accepted == AcceptedManifest(40, store.generation(1).manifest_sha256)
    signature = read_signature(store.path_of(1) / "manifest.sig")
    assert signature is not None
    assert signature.version == 40


def test_the_refusals_of_the_page_are_what_the_program_says(flight: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = {}
    for row in re.findall(r"^\| (`.*?) \|", PAGE.split("## When signing or verifying is refused")[1], re.MULTILINE):
        said.update(dict.fromkeys(re.findall(r"`(.*?)`", row), ""))
    for block in blocks("sh")[:2]:
        run(block)
    take_off()
    store = EngineStore(flight / "engines")
    path = store.path_of(2) / "manifest.sig"
    whole = path.read_bytes()
    accepted = flight / "state" / "accepted_manifest"
    refusals = []

    def refuse() -> None:
        with pytest.raises(C7Error) as refused:
            take_off()
        refusals.append(str(refused.value))

    for altered in (whole.replace(b"version 1", b"version 2"), whole[:-1]):
        path.write_bytes(altered)
        refuse()
    path.unlink()
    refuse()
    assert main(["engines", "sign", "engines", "--key", "ground.private.pem", "--generation", "1"]) == 0
    path.write_bytes((store.path_of(1) / "manifest.sig").read_bytes())
    refuse()
    path.write_bytes(whole)
    accepted.write_bytes(accepted.read_bytes()[:-1])
    refuse()
    accepted.unlink()
    assert main(["engines", "sign", "engines", "--key", "ground.private.pem", "--version", "9"]) == 0
    take_off()
    path.write_bytes(whole)
    refuse()
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", "other.private.pem"],  # noqa: S607
        check=True,
        timeout=60,
    )
    capfd.readouterr()
    assert main(["engines", "sign", "engines", "--key", "other.private.pem"]) == 1
    (store.path_of(1) / "stranger.engine").touch()
    assert main(["engines", "verify", "engines"]) == 1
    printed = capfd.readouterr()
    refusals += [printed.err, printed.out]
    assert main(["engines", "sign", "engines", "--key", "other.private.pem", "--version", "50"]) == 0
    refuse()

    assert said
    for text in said:
        pattern = re.escape(text).replace("…", ".*").replace(" N", r" \d+")
        assert any(re.search(pattern, refusal) for refusal in refusals), text
