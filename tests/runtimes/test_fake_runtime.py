"""The scripted runtime, as a test of an actor or a consumer uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from messages import (
    EngineBuildError,
    EngineDeserializeError,
    InferenceError,
    InvalidInputError,
    OutOfMemoryError,
    Tensor,
    TensorSpec,
    VirtualClock,
)
from runtimes.fake_runtime import FakeRuntime
from runtimes.fake_steps import (
    blocks_until,
    computes,
    fails_to_load,
    hangs,
    hangs_at_load,
    loads,
    loads_after,
    raises,
    returns,
    takes_ms,
)
from runtimes.inference_runtime import BuildConfig

MATCHES = {"matches": np.array([[0, 3], [1, 2]], np.int64)}
FRAME = {"image": np.zeros((1, 2, 2), np.float32)}


def test_a_script_is_played_in_order_and_its_last_step_repeats() -> None:
    fake = FakeRuntime({"lightglue": [returns(MATCHES), raises(InferenceError("716")), returns(MATCHES)]})
    handle = fake.deserialize_engine(fake.entry("lightglue"))
    np.testing.assert_array_equal(fake.infer(handle, FRAME)["matches"], MATCHES["matches"])
    with pytest.raises(InferenceError, match=r"^716$"):
        fake.infer(handle, FRAME)
    for _ in range(3):
        assert "matches" in fake.infer(handle, FRAME)


def test_each_model_has_a_script_of_its_own() -> None:
    fake = FakeRuntime({"good": returns(MATCHES), "bad": raises(OutOfMemoryError("device full"))})
    good, bad = (fake.deserialize_engine(fake.entry(name)) for name in ("good", "bad"))
    with pytest.raises(OutOfMemoryError, match="device full"):
        fake.infer(bad, FRAME)
    assert "matches" in fake.infer(good, FRAME)


def test_a_script_goes_on_where_it_was_when_the_engine_is_loaded_again() -> None:
    broken = EngineDeserializeError("no room")
    fake = FakeRuntime({"vpr": [raises(InferenceError("716")), fails_to_load(broken), returns(MATCHES)]})
    first = fake.deserialize_engine(fake.entry("vpr"))
    with pytest.raises(InferenceError):
        fake.infer(first, FRAME)
    fake.release_engine(first)
    with pytest.raises(EngineDeserializeError, match="no room"):
        fake.deserialize_engine(fake.entry("vpr"))
    second = fake.deserialize_engine(fake.entry("vpr"))
    assert fake.infer(second, FRAME)
    assert fake.loads("vpr") == 2
    assert fake.loaded == ("vpr",)


def test_a_script_goes_on_where_it_was_when_the_engine_is_resumed() -> None:
    script = [
        returns(MATCHES),
        raises(InferenceError("716")),
        fails_to_load(OutOfMemoryError("full")),
        returns(MATCHES),
    ]
    fake = FakeRuntime({"vpr": script})
    first = fake.deserialize_engine(fake.entry("vpr"))
    fake.suspend_engine(first)
    second = fake.resume_engine(first)  # the next step is a run: nothing of the script is used up
    assert "matches" in fake.infer(second, FRAME)
    with pytest.raises(InferenceError, match="716"):
        fake.infer(second, FRAME)
    fake.suspend_engine(second)
    with pytest.raises(OutOfMemoryError, match="full"):
        fake.resume_engine(second)
    third = fake.resume_engine(second)
    assert "matches" in fake.infer(third, FRAME)
    assert (fake.loads("vpr"), fake.resumes("vpr")) == (1, 2)
    assert {call.load for call in fake.calls} == {1}


def test_an_error_is_a_new_one_each_time() -> None:
    fake = FakeRuntime({"vpr": raises(InferenceError("716"))})
    handle = fake.deserialize_engine(fake.entry("vpr"))
    errors = []
    for _ in range(2):
        with pytest.raises(InferenceError) as caught:
            fake.infer(handle, FRAME)
        errors.append(caught.value)
    assert errors[0] is not errors[1]


def test_a_run_where_the_script_expects_a_load_says_so() -> None:
    fake = FakeRuntime({"vpr": [returns(MATCHES), fails_to_load(EngineDeserializeError("x"))]})
    handle = fake.deserialize_engine(fake.entry("vpr"))
    fake.infer(handle, FRAME)
    with pytest.raises(InferenceError, match="expected a load"):
        fake.infer(handle, FRAME)


def test_a_step_takes_virtual_time_without_waiting() -> None:
    clock = VirtualClock()
    fake = FakeRuntime({"vpr": takes_ms(3_600_000, returns(MATCHES))}, clock=clock)
    handle = fake.deserialize_engine(fake.entry("vpr"))
    began_ns = clock.monotonic_ns()
    fake.infer(handle, FRAME)
    assert clock.monotonic_ns() - began_ns == 3_600_000 * 1_000_000


def test_a_step_takes_real_time_on_a_real_clock() -> None:
    fake = FakeRuntime({"vpr": takes_ms(1, returns(MATCHES))})
    assert fake.infer(fake.deserialize_engine(fake.entry("vpr")), FRAME)


def test_runs_that_overlap_are_counted_per_engine_and_in_all() -> None:
    all_inside = threading.Barrier(3, timeout=30)

    def meet(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        all_inside.wait()
        return inputs

    fake = FakeRuntime({name: computes(meet) for name in ("vpr", "matcher")})
    handles = [fake.deserialize_engine(fake.entry(name)) for name in ("vpr", "vpr", "matcher")]
    threads = [threading.Thread(target=fake.infer, args=(handle, FRAME), daemon=True) for handle in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert fake.peak_concurrency("vpr") == 1
    assert fake.peak_concurrency() == 3
    assert sorted((call.model, call.load) for call in fake.calls) == [("matcher", 1), ("vpr", 1), ("vpr", 2)]


def test_a_run_can_be_held_until_an_event() -> None:
    release = threading.Event()
    fake = FakeRuntime({"vpr": blocks_until(release, returns(MATCHES))})
    handle = fake.deserialize_engine(fake.entry("vpr"))
    outputs: list[Mapping[str, Tensor]] = []
    running = threading.Thread(target=lambda: outputs.append(fake.infer(handle, FRAME)), daemon=True)
    running.start()
    assert outputs == []
    release.set()
    running.join(timeout=30)
    assert outputs[0].keys() == MATCHES.keys()


def test_a_load_can_be_held_until_an_event() -> None:
    ready = threading.Event()
    fake = FakeRuntime({"vpr": [loads_after(ready), returns(MATCHES)]})
    loading = threading.Thread(target=fake.deserialize_engine, args=(fake.entry("vpr"),), daemon=True)
    loading.start()
    assert fake.loads("vpr") == 0
    ready.set()
    loading.join(timeout=30)
    assert fake.loaded == ("vpr",)


def test_a_run_that_hangs_comes_back_when_it_is_released_and_then_none_hangs_any_more() -> None:
    fake = FakeRuntime({"vpr": [hangs(), hangs(returns(MATCHES))]})
    handle = fake.deserialize_engine(fake.entry("vpr"))
    outputs: list[Mapping[str, Tensor]] = []
    running = threading.Thread(target=lambda: outputs.append(fake.infer(handle, FRAME)), daemon=True)
    running.start()
    assert outputs == []
    fake.release_hung()
    running.join(timeout=30)
    assert outputs == [{}]
    assert fake.infer(handle, FRAME).keys() == MATCHES.keys()


def test_a_load_that_hangs_comes_back_when_it_is_released() -> None:
    fake = FakeRuntime({"vpr": [hangs_at_load(), returns(MATCHES)]})
    loading = threading.Thread(target=fake.deserialize_engine, args=(fake.entry("vpr"),), daemon=True)
    loading.start()
    assert fake.loads("vpr") == 0
    fake.release_hung()
    loading.join(timeout=30)
    assert fake.loaded == ("vpr",)


def test_what_hangs_and_is_forgotten_fails_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimes.fake_stage.BLOCK_MAX_S", 0.0)
    fake = FakeRuntime({"vpr": hangs()})
    handle = fake.deserialize_engine(fake.entry("vpr"))
    with pytest.raises(InferenceError, match="waited 0 s for its event"):
        fake.infer(handle, FRAME)


def test_a_load_takes_time_and_the_next_one_fails() -> None:
    clock = VirtualClock()
    broken = EngineDeserializeError("no room")
    fake = FakeRuntime({"vpr": [takes_ms(500, loads()), fails_to_load(broken), returns(MATCHES)]}, clock=clock)
    began_ns = clock.monotonic_ns()
    fake.deserialize_engine(fake.entry("vpr"))
    assert clock.monotonic_ns() - began_ns == 500_000_000
    with pytest.raises(EngineDeserializeError, match="no room"):
        fake.deserialize_engine(fake.entry("vpr"))


def test_calls_record_what_was_asked() -> None:
    fake = FakeRuntime({"vpr": returns(MATCHES)})
    fake.infer(fake.deserialize_engine(fake.entry("vpr")), FRAME)
    assert fake.calls == (("vpr", 1, {"image": TensorSpec((1, 2, 2), "float32")}),)


def test_inputs_are_checked_where_the_test_says_what_they_are() -> None:
    fake = FakeRuntime({"vpr": computes(lambda x: x)}, inputs={"vpr": {"image": TensorSpec((-1, 2, 2), "float32")}})
    handle = fake.deserialize_engine(fake.entry("vpr"))
    with pytest.raises(InvalidInputError, match="image is missing"):
        fake.infer(handle, {})
    assert fake.calls == ()
    np.testing.assert_array_equal(fake.infer(handle, FRAME)["image"], FRAME["image"])


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ([[0.0]], "a list, which is no tensor"),
        ("frame.png", "a str, which is no tensor"),
        (np.array(["a"]), r"str\w*\[1\]"),
        (np.array([None]), r"object\[1\]"),
    ],
    ids=["list", "text", "array of texts", "array of objects"],
)
def test_what_no_engine_could_take_is_refused_as_a_real_one_would_and_is_no_fault(image: object, found: str) -> None:
    fake = FakeRuntime({"vpr": returns(MATCHES)})
    handle = fake.deserialize_engine(fake.entry("vpr"))
    with pytest.raises(InvalidInputError, match=f"vpr: input image: expected a tensor .*, found {found}"):
        fake.infer(handle, {"image": image})  # type: ignore[dict-item]
    assert fake.calls == ()


@pytest.mark.parametrize("scripted", [raises, fails_to_load])
@pytest.mark.parametrize("mistake", [InferenceError, "716", None])
def test_a_scripted_error_that_is_none_is_a_mistake_of_the_test(
    scripted: Callable[[object], object], mistake: object
) -> None:
    with pytest.raises(TypeError, match=r"expected an error such as InferenceError\('716'\), found"):
        scripted(mistake)


@pytest.mark.parametrize("duration_ms", [-1, float("nan"), float("inf")])
def test_a_step_takes_no_time_that_is_none(duration_ms: float) -> None:
    with pytest.raises(ValueError, match="takes_ms: expected a duration of 0 ms or more, found"):
        takes_ms(duration_ms, returns(MATCHES))


@pytest.mark.parametrize("script", [MATCHES, [returns(MATCHES), MATCHES], [InferenceError("716")]], ids=str)
def test_a_script_of_something_else_than_steps_is_a_mistake(script: object) -> None:
    with pytest.raises(TypeError, match=r"vpr: expected steps such as returns\(outputs\), found"):
        FakeRuntime({"vpr": script})  # type: ignore[dict-item]


def test_an_entry_of_one_fake_is_no_engine_of_another() -> None:
    entry = FakeRuntime({"vpr": returns(MATCHES)}, label="fake one").entry("vpr")
    with pytest.raises(EngineDeserializeError, match="fake one"):
        FakeRuntime({"vpr": returns(MATCHES)}, label="fake two").deserialize_engine(entry)


def test_entries_describe_what_the_script_tells() -> None:
    fake = FakeRuntime({"vpr": [raises(InferenceError("x")), takes_ms(1, returns(MATCHES))]})
    assert fake.entries().keys() == {"vpr"}
    assert fake.entry("vpr").outputs == {"matches": TensorSpec((2, 2), "int64")}


def test_a_model_without_a_script_is_refused_by_name(tmp_path: Path) -> None:
    source = tmp_path / "vpr.onnx"
    source.write_bytes(b"x")
    fake = FakeRuntime({"matcher": returns(MATCHES)})
    with pytest.raises(EngineBuildError, match="no script for model vpr; there are matcher"):
        fake.compile_engine(source, BuildConfig())
    with pytest.raises(ValueError, match="none for vpr"):
        FakeRuntime({"vpr": []})
