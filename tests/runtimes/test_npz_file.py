"""Files of tensors under damage: whatever the bytes are, they give arrays or a typed error that names the file."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from messages import ConfigError
from runtimes.npz_file import decode_npz, encode_npz

WHERE = Path("inputs.npz")
ARRAYS: dict[str, np.ndarray] = {"image": np.arange(6, dtype=np.float32).reshape(2, 3), "view": np.ones(3, np.int64)}
SEED = int(os.environ.get("C7_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
FLIPS = 150
CHAOS_FLIPS = int(os.environ.get("C7_CHAOS_FLIPS", "10000"))


def compressed() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=ARRAYS["image"], view=ARRAYS["view"])
    return buffer.getvalue()


def flip(flips: int, seed: int) -> tuple[int, int]:
    """Flip one random bit `flips` times, in a plain and in a compressed file: (refused, read).

    A file's dates and attributes are under no checksum, so that some flips change nothing that is read.
    """
    choose = random.Random(seed)
    wholes = (encode_npz(ARRAYS), compressed())
    refused = 0
    for number in range(flips):
        altered = bytearray(wholes[number % 2])
        bit = choose.randrange(len(altered) * 8)
        altered[bit // 8] ^= 1 << bit % 8
        try:
            found = decode_npz(WHERE, bytes(altered), max_bytes=10_000)
        except ConfigError as error:
            assert str(error).startswith("inputs.npz: ")  # noqa: PT017 - both outcomes are right
            refused += 1
            continue
        assert sorted(array.tobytes() for array in found.values()) == sorted(a.tobytes() for a in ARRAYS.values())
    return refused, flips - refused


def test_a_flipped_bit_is_refused_or_changes_no_value() -> None:
    refused, read = flip(FLIPS, seed=7)
    assert refused > read > 0


@pytest.mark.chaos
def test_ten_thousand_flipped_bits_are_refused_or_change_no_value() -> None:
    print(f"C7_CHAOS_SEED={SEED}")
    refused, read = flip(CHAOS_FLIPS, SEED)
    print(f"{CHAOS_FLIPS} random bit flips in files of tensors: {refused} refused, {read} without effect, 0 tracebacks")


def test_a_member_that_is_hidden_by_one_bit_is_missed() -> None:
    whole = bytearray(encode_npz(ARRAYS))
    comment_length = whole.index(b"PK\x01\x02") + 32
    whole[comment_length] ^= 0xFF
    with pytest.raises(ConfigError, match="expected 2 arrays by its own count, found 1"):
        decode_npz(WHERE, bytes(whole), max_bytes=10_000)


def test_every_truncation_is_refused() -> None:
    whole = encode_npz(ARRAYS)
    for kept in range(len(whole)):
        with pytest.raises(ConfigError, match=r"inputs\.npz: "):
            decode_npz(WHERE, whole[:kept], max_bytes=10_000)


def test_equal_arrays_give_equal_bytes() -> None:
    assert encode_npz(ARRAYS) == encode_npz({name: array.copy() for name, array in ARRAYS.items()})


def test_an_archive_behind_something_else_is_no_array_that_unpickles() -> None:
    """`numpy.load` would look at the first bytes alone and take this for a pickle."""
    found = decode_npz(WHERE, b"\x80\x04junk" + encode_npz(ARRAYS), max_bytes=10_000)
    assert list(found) == ["image", "view"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("image.npy", "image.npy"):
            with archive.open(name, "w") as member:
                np.lib.format.write_array(member, ARRAYS["image"])
    with pytest.raises(ConfigError, match="expected each array once, found image twice"):
        decode_npz(WHERE, buffer.getvalue(), max_bytes=10_000)


def test_data_behind_an_array_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("image.npy", "w") as member:
        np.lib.format.write_array(member, ARRAYS["image"])
        member.write(b"more")
    with pytest.raises(ConfigError, match=r"image cannot be read: expected 24 bytes of data, found more"):
        decode_npz(WHERE, buffer.getvalue(), max_bytes=10_000)


def test_an_array_that_claims_more_than_its_file_holds_is_refused() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("image.npy", header.getvalue())
    with pytest.raises(ConfigError, match=r"inputs\.npz: array image cannot be read"):
        decode_npz(WHERE, buffer.getvalue(), max_bytes=10_000)


def test_an_arrays_name_does_not_steer_a_log_or_a_terminal() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("\x1b[2K\n" * 1000 + ".npy", b"no array")
    with pytest.raises(ConfigError) as refused:
        decode_npz(WHERE, buffer.getvalue(), max_bytes=10_000)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000
