"""One engine on disk: whatever is altered, missing or swapped is refused by name, and never loaded."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages import ConfigError, EngineDeserializeError, EngineStoreError, TensorSpec
from runtimes.build_report import BuildReport
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, HostTuple
from runtimes.source_model import SourceModel, read_source
from runtimes.store.engine_artifact import (
    engine_files,
    metadata_path,
    read_engine,
    read_entry,
    sidecar_of,
)
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.store.sha256_sidecar import Sha256Sidecar, sha256_of

LABEL = "onnx_trt_ep[cpu]"
HOST = HostTuple(
    sm=87,
    sm_count=8,
    device_name="Orin",
    jetpack="6.2",
    l4t="36.4.3",
    tensorrt="10.3.0.30",
    cuda="12.6",
    machine="aarch64",
    runtime_version="1.31.1",
)
ENGINE = bytes(range(256)) * 3
needs_root_free_modes = pytest.mark.skipif(os.geteuid() == 0, reason="modes do not bind root")


def write(directory: Path, model: str = "vpr", data: bytes = ENGINE) -> EngineCacheEntry:
    return write_engine(
        directory,
        model,
        SourceModel(Path("/models/ultravpr.onnx"), b"source", sha256_of(b"source")),
        BuiltEngine(
            data=data,
            inputs={"image": TensorSpec((-1, 3, 8, 8), "float32")},
            outputs={"descriptor": TensorSpec((-1, 4), "float32")},
            build_tool="onnxruntime 1.31.1",
        ),
        BuildConfig(precision="fp16", optimization_profiles=(("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)),)),
        LABEL,
        HOST,
        1_500_000_000,
    )


def load(entry: EngineCacheEntry) -> bytes:
    return read_engine(entry, runtime_label=LABEL, host=HOST)


@pytest.fixture
def entry(tmp_path: Path) -> EngineCacheEntry:
    return write(tmp_path)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineCacheEntry, dict[Path, bytes]]:
    """A written engine whose files a property test alters and restores."""
    written = write(tmp_path_factory.mktemp("engine"))
    return written, {path: path.read_bytes() for path in engine_files(written.path)}


def test_what_was_written_is_what_is_read(entry: EngineCacheEntry) -> None:
    assert read_entry(entry.path) == entry
    assert load(entry) == ENGINE


def test_three_files_lie_there_and_nothing_else(entry: EngineCacheEntry) -> None:
    name = "vpr__sm87_jp6.2_trt10.3_fp16.engine"
    assert sorted(path.name for path in entry.path.parent.iterdir()) == [name, f"{name}.json", f"{name}.sha256"]


def test_an_engine_says_nothing_of_the_folder_that_it_lies_in(entry: EngineCacheEntry) -> None:
    """So a generation can be linked, copied or renamed without writing it anew."""
    folder = str(entry.path.parent).encode()
    assert all(folder not in path.read_bytes() for path in engine_files(entry.path))


def test_an_engine_is_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path, data=b"first")
    second = write(tmp_path, data=b"second")
    assert load(second) == b"second"


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused_by_name(
    contents: tuple[EngineCacheEntry, dict[Path, bytes]], data: st.DataObject
) -> None:
    entry, files = contents
    path = data.draw(st.sampled_from(sorted(files)))
    bit = data.draw(st.integers(0, len(files[path]) * 8 - 1))
    altered = bytearray(files[path])
    altered[bit // 8] ^= 1 << bit % 8
    path.write_bytes(altered)
    try:
        with pytest.raises(EngineDeserializeError, match=r"\.engine.*c7 provision FLIGHT\.toml"):
            load(entry)
        with pytest.raises(EngineDeserializeError, match=r"\.engine"):
            load(read_entry(entry.path))
    finally:
        path.write_bytes(files[path])
    assert load(entry) == ENGINE


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_truncation_of_every_file_is_refused(
    contents: tuple[EngineCacheEntry, dict[Path, bytes]], which: int
) -> None:
    entry, files = contents
    path = engine_files(entry.path)[which]
    try:
        for kept in range(len(files[path])):
            path.write_bytes(files[path][:kept])
            with pytest.raises(EngineDeserializeError):
                load(entry)
            with pytest.raises(EngineDeserializeError):
                load(read_entry(entry.path))
    finally:
        path.write_bytes(files[path])


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("change", ["missing", "longer", "link", "pipe", "folder"])
def test_what_is_no_whole_regular_file_is_refused_by_name(entry: EngineCacheEntry, which: int, change: str) -> None:
    path = engine_files(entry.path)[which]
    data = path.read_bytes()
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(data)
    path.unlink()
    changes: dict[str, Callable[[], object]] = {
        "missing": lambda: None,
        "longer": lambda: path.write_bytes(data + b"\0"),
        "link": lambda: path.symlink_to(elsewhere),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    changes[change]()
    with pytest.raises(EngineDeserializeError) as refused:
        load(entry)
    assert str(path) in str(refused.value)


def test_an_altered_engine_names_both_hashes_and_what_to_do(entry: EngineCacheEntry) -> None:
    altered = ENGINE[:-1] + b"!"
    entry.path.write_bytes(altered)
    with pytest.raises(EngineDeserializeError) as refused:
        load(entry)
    text = str(refused.value)
    assert sha256_of(ENGINE) in text
    assert sha256_of(altered) in text
    assert "c7 provision FLIGHT.toml" in text


def test_edited_metadata_is_refused_though_the_engine_is_whole(entry: EngineCacheEntry) -> None:
    path = metadata_path(entry.path)
    path.write_bytes(path.read_bytes().replace(b'"jetpack": "6.2"', b'"jetpack": "6.1"'))
    with pytest.raises(EngineDeserializeError, match=r"\.engine\.json: content altered"):
        read_entry(entry.path)


def edit(entry: EngineCacheEntry, change: Callable[[dict[str, object]], object]) -> None:
    """Edit the metadata and rewrite the sidecar to fit: what a hash alone cannot refuse."""
    path = metadata_path(entry.path)
    fields = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    change(fields)
    data = msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"
    path.write_bytes(data)
    sidecar = Sha256Sidecar({entry.path.name: entry.engine_sha256, path.name: sha256_of(data)})
    Sha256Sidecar.path_for(entry.path).write_bytes(sidecar.format())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda fields: fields.update(format=2), "expected metadata format 3, found 2"),
        (lambda fields: fields.update(colour="red"), "unknown field `colour`"),
        (lambda fields: fields.update(path="/etc/passwd"), "unknown field `path`"),
        (lambda fields: fields.pop("host"), "missing required field `host`"),
        (lambda fields: fields.update(engine_size_bytes="768"), "Expected `int`, got `str`"),
        (lambda fields: fields.update(model="../../etc"), "model name"),
        (lambda fields: fields.update(model="other"), "its name contradicts its metadata"),
        (lambda fields: fields.update(engine_sha256="0" * 64), "metadata and sidecar disagree"),
    ],
)
def test_metadata_that_does_not_fit_is_refused_even_with_a_fitting_sidecar(
    entry: EngineCacheEntry, change: Callable[[dict[str, object]], object], expected: str
) -> None:
    edit(entry, change)
    with pytest.raises(EngineDeserializeError, match=expected):
        read_entry(entry.path)


@pytest.mark.parametrize("text", [b"", b"[]", b"nonsense", b"[" * 100_000, b"\xff\xfe"])
def test_metadata_that_is_no_document_is_refused(entry: EngineCacheEntry, text: bytes) -> None:
    path = metadata_path(entry.path)
    path.write_bytes(text)
    sidecar = Sha256Sidecar({entry.path.name: entry.engine_sha256, path.name: sha256_of(text)})
    Sha256Sidecar.path_for(entry.path).write_bytes(sidecar.format())
    with pytest.raises(EngineDeserializeError, match=r"\.engine\.json"):
        read_entry(entry.path)


def test_another_runtime_is_refused_with_both_labels(entry: EngineCacheEntry) -> None:
    with pytest.raises(EngineDeserializeError, match=r"engine onnx_trt_ep\[cpu\], here pytorch_fp16\[cpu\]"):
        read_engine(entry, runtime_label="pytorch_fp16[cpu]", host=HOST)


@pytest.mark.parametrize("field", HostTuple.__struct_fields__)
def test_each_field_of_the_host_binds_the_engine(entry: EngineCacheEntry, field: str) -> None:
    was = getattr(HOST, field)
    here = msgspec.structs.replace(HOST, **{field: was + 1 if isinstance(was, int) else f"{was}.9"})
    with pytest.raises(EngineDeserializeError, match=rf"{field}: engine .*, host .*c7 provision"):
        read_engine(entry, runtime_label=LABEL, host=here)


def test_an_entry_that_is_not_the_one_on_disk_is_refused(entry: EngineCacheEntry) -> None:
    claimed = msgspec.structs.replace(entry, source_sha256="0" * 64)
    with pytest.raises(EngineDeserializeError, match="different: source_sha256"):
        load(claimed)


def test_another_engine_put_in_its_place_is_refused(tmp_path: Path, entry: EngineCacheEntry) -> None:
    other = write(tmp_path / "other", data=b"a whole engine of another model")
    for ours, theirs in zip(engine_files(entry.path), engine_files(other.path), strict=True):
        theirs.replace(ours)
    with pytest.raises(EngineDeserializeError, match="different: engine_sha256"):
        load(entry)


def test_the_file_that_a_link_led_to_is_recorded_as_the_source(tmp_path: Path) -> None:
    (tmp_path / "ultravpr v3.onnx").write_bytes(b"source")
    (tmp_path / "vpr.onnx").symlink_to("ultravpr v3.onnx")
    source = read_source(tmp_path / "vpr.onnx", suffix=".onnx")
    built = BuiltEngine(data=ENGINE, inputs={}, outputs={}, build_tool="test")
    entry = write_engine(tmp_path, "vpr", source, built, BuildConfig(), LABEL, HOST, 1)
    assert entry.source_name == "ultravpr v3.onnx"


def test_a_model_that_no_file_can_be_named_after_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write(tmp_path / "engines", model="../vpr")
    assert not (tmp_path / "engines").exists()


def test_a_folder_that_cannot_exist_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineStoreError, match=r"file/engines: the engine of vpr cannot be written"):
        write(tmp_path / "file" / "engines")


@needs_root_free_modes
def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(EngineStoreError, match="Permission denied"):
        write(tmp_path)


FILL = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2].split(":")
import importlib.util
spec = importlib.util.spec_from_file_location("artifact_tests", sys.argv[3])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
from messages import EngineStoreError
folder = Path(sys.argv[1])
former = tests.write(folder, data=b"small")
try:
    tests.write(folder, data=b"x" * 4_000_000)
except EngineStoreError as error:
    print(error)
assert tests.load(former) == b"small"
assert len(list(folder.iterdir())) == 3, list(folder.iterdir())
"""


def fill(tmp_path: Path, *, before: str) -> subprocess.CompletedProcess[str]:
    """Write a small and then a 4 MB engine into `tmp_path / 'disk'`, in a shell where `before` has run."""
    (tmp_path / "disk").mkdir()
    return subprocess.run(  # noqa: S603
        [
            "/bin/bash",
            "-c",
            f'set -e; {before}; exec "$@"',
            "bash",
            sys.executable,
            "-c",
            FILL,
            str(tmp_path / "disk"),
            ":".join(filter(None, sys.path)),
            __file__,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DISK": str(tmp_path / "disk")},
    )


def may_mount() -> bool:
    probe = 'd=$(mktemp -d) && mount -t tmpfs -o size=1m none "$d" && umount "$d" && rmdir "$d"'
    command = ["/usr/bin/unshare", "-m", "/bin/bash", "-c", probe]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False


@pytest.mark.skipif(not may_mount(), reason="this user may not mount a small disk")
def test_a_full_disk_leaves_the_former_engine_and_says_how_much_was_missing(tmp_path: Path) -> None:
    mount = 'exec /usr/bin/unshare -m /bin/bash -c \'mount -t tmpfs -o size=1m none "$DISK"; exec "$@"\' bash "$@"'
    done = fill(tmp_path, before=mount)
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stdout
    assert "bytes are needed" in done.stdout
    assert "bytes are free" in done.stdout


def test_the_limit_on_file_size_leaves_the_former_engine(tmp_path: Path) -> None:
    done = fill(tmp_path, before="trap '' XFSZ; ulimit -f 1024")
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_any_failing_step_leaves_the_former_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    former = write(tmp_path, data=b"former")
    calls = 0
    real = getattr(os, call)

    def fail_second(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, call, fail_second)
    with pytest.raises(EngineStoreError, match="No space left on device"):
        write(tmp_path, data=b"next")
    monkeypatch.undo()
    assert load(former) == b"former"
    assert len(list(tmp_path.iterdir())) == 3


def test_an_engine_that_is_named_through_a_linked_folder_is_read_from_where_it_lies(tmp_path: Path) -> None:
    entry = write(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert read_entry(tmp_path / "link" / entry.path.name) == entry
    with pytest.raises(EngineDeserializeError, match="found a symbolic link"):
        load(msgspec.structs.replace(entry, path=tmp_path / "link" / entry.path.name))


@pytest.mark.parametrize(
    "rewritten",
    [
        lambda data: data + b"\n",
        lambda data: data.replace(b'"model": "vpr"', b'"model": "other",\n  "model": "vpr"'),
        lambda data: data.replace(b'"format": 3,', b'"format": 3.0,'),
        lambda data: data.replace(b'"build_ns": ', b'"build_ns":  '),
    ],
)
def test_the_same_metadata_written_in_another_way_is_refused(
    entry: EngineCacheEntry, rewritten: Callable[[bytes], bytes]
) -> None:
    path = metadata_path(entry.path)
    data = rewritten(path.read_bytes())
    assert data != path.read_bytes()
    path.write_bytes(data)
    Sha256Sidecar.path_for(entry.path).write_bytes(sidecar_of(entry, data).format())
    with pytest.raises(EngineDeserializeError, match="not an engine's metadata as it is written"):
        read_entry(entry.path)


@pytest.mark.parametrize("place", [("build_ns",), ("engine_size_bytes",), ("host", "sm"), ("memory", "load_bytes")])
@pytest.mark.parametrize("value", [-1, 2**63, 10**400])
def test_a_number_that_no_machine_has_is_refused(entry: EngineCacheEntry, place: tuple[str, ...], value: int) -> None:
    def change(document: dict[str, object]) -> None:
        document["memory"] = {"load_bytes": 1, "run_bytes": 1, "device_load_bytes": 0, "device_run_bytes": 0}
        inner = document
        for name in place[:-1]:
            inner = cast("dict[str, object]", inner[name])
        inner[place[-1]] = 0  # what msgspec cannot write, it reads

    edit(entry, change)
    path = metadata_path(entry.path)
    data = path.read_bytes().replace(b'"%s": 0' % place[-1].encode(), b'"%s": %d' % (place[-1].encode(), value))
    path.write_bytes(data)
    Sha256Sidecar.path_for(entry.path).write_bytes(sidecar_of(entry, data).format())
    with pytest.raises(EngineDeserializeError, match=f"not an engine's metadata: .*{place[-1]}"):
        read_entry(entry.path)


def test_what_tensorrt_was_asked_for_and_did_is_read_back_with_the_engine(tmp_path: Path) -> None:
    report = BuildReport(
        optimization_level=3,
        builder="trtexec",
        tensorrt="10.3.0.30",
        strongly_typed=False,
        flags=("FP16", "INT8"),
        command=("/usr/src/tensorrt/bin/trtexec", "--fp16"),
        layer_precisions={"fp16": 12, "int8": 30, "moved": 2},
        skipped_tactics=3,
        missing_scales=0,
        warnings=("a tactic was slow",),
        activation_bytes=(1024,),
    )
    entry = write_engine(
        tmp_path,
        "vpr",
        SourceModel(Path("/models/ultravpr.onnx"), b"source", sha256_of(b"source")),
        BuiltEngine(data=ENGINE, inputs={}, outputs={}, build_tool="tensorrt 10.3.0.30 (trtexec)", report=report),
        BuildConfig(precision="fp16"),
        "tensorrt",
        HOST,
        1,
    )

    assert read_entry(entry.path).build == report
    assert write(tmp_path / "other").build is None
