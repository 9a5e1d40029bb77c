"""The highest version that was accepted: one line that no flipped bit turns into another, never lowered."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.flight.accepted_manifest import (
    ACCEPTED_MAX_BYTES,
    ACCEPTED_NAME,
    AcceptedManifest,
    read_accepted,
    record_accepted,
    why_refused,
)
from messages import TakeoffRefusedError
from runtimes.store.disk import DISK
from runtimes.store.signature import VERSION_MAX, SignedVersion

A, B = "a" * 64, "b" * 64

hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
accepted_manifests = st.builds(AcceptedManifest, st.integers(1, VERSION_MAX), hashes)


@given(accepted_manifests)
def test_format_and_parse_are_inverse(accepted: AcceptedManifest) -> None:
    assert AcceptedManifest.parse(accepted.format()) == accepted
    assert accepted.format().count(b"\n") == 1
    assert len(accepted.format()) <= ACCEPTED_MAX_BYTES


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    assert read_accepted(tmp_path) is None
    record_accepted(tmp_path, SignedVersion(3, A))
    assert read_accepted(tmp_path) == AcceptedManifest(3, A)
    record_accepted(tmp_path, SignedVersion(4, B))
    assert read_accepted(tmp_path) == AcceptedManifest(4, B)


def test_every_flipped_bit_every_truncation_and_every_added_byte_is_refused_by_name(tmp_path: Path) -> None:
    whole = AcceptedManifest(12, A).format()
    path = tmp_path / ACCEPTED_NAME
    flipped = [
        whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
        for place in range(len(whole))
        for bit in range(8)
    ]
    for altered in (*flipped, *(whole[:kept] for kept in range(len(whole))), whole + b"\n", whole + b"x", whole * 2):
        path.write_bytes(altered)
        with pytest.raises(TakeoffRefusedError) as refused:
            read_accepted(tmp_path)
        assert str(refused.value).startswith(f"{path}: ")
        assert "On the ground" in str(refused.value)
    path.write_bytes(whole)
    assert read_accepted(tmp_path) == AcceptedManifest(12, A)


def test_a_link_and_a_huge_file_in_its_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / ACCEPTED_NAME
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(AcceptedManifest(1, A).format())
    path.symlink_to(elsewhere)
    with pytest.raises(TakeoffRefusedError, match="found a symbolic link"):
        read_accepted(tmp_path)
    path.unlink()
    path.write_bytes(bytes(ACCEPTED_MAX_BYTES + 1))
    with pytest.raises(TakeoffRefusedError, match="expected at most 512 bytes"):
        read_accepted(tmp_path)


def test_the_state_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "real")
    record_accepted(tmp_path / "state", SignedVersion(3, A))
    assert read_accepted(tmp_path / "real") == read_accepted(tmp_path / "state") == AcceptedManifest(3, A)


@pytest.mark.parametrize(
    ("signed", "accepted", "takes_off"),
    [
        (SignedVersion(1, A), None, True),
        (SignedVersion(4, A), AcceptedManifest(3, A), True),
        (SignedVersion(4, B), AcceptedManifest(3, A), True),
        (SignedVersion(3, A), AcceptedManifest(3, A), True),
        (SignedVersion(3, B), AcceptedManifest(3, A), False),
        (SignedVersion(2, A), AcceptedManifest(3, A), False),
        (SignedVersion(2, B), AcceptedManifest(3, A), False),
        (SignedVersion(9, A), AcceptedManifest(10, A), False),
    ],
)
def test_a_version_takes_off_unless_it_is_older_or_was_given_to_another_manifest(
    signed: SignedVersion, accepted: AcceptedManifest | None, takes_off: bool
) -> None:
    reason = why_refused(signed, accepted)
    assert (reason == "") is takes_off
    if accepted is not None and not takes_off:
        assert f"expected a version above {accepted.version}" in reason
        assert "found " in reason
        assert f"--version {accepted.version + 1}" in reason


@given(st.builds(SignedVersion, st.integers(1, 5), st.sampled_from([A, B])), st.lists(st.integers(1, 5), max_size=8))
def test_no_order_of_takeoffs_ever_lowers_what_was_accepted(first: SignedVersion, versions: list[int]) -> None:
    accepted: AcceptedManifest | None = None
    for signed in (first, *(SignedVersion(version, A) for version in versions)):
        if why_refused(signed, accepted):
            continue
        former, accepted = accepted, AcceptedManifest(signed.version, signed.manifest_sha256)
        assert former is None or former.version < accepted.version or former == accepted


def test_a_lower_version_is_not_recorded_and_changes_nothing(tmp_path: Path) -> None:
    record_accepted(tmp_path, SignedVersion(3, A))
    before = (tmp_path / ACCEPTED_NAME).read_bytes()
    for signed in (SignedVersion(2, A), SignedVersion(3, B)):
        with pytest.raises(TakeoffRefusedError, match="expected a version above 3"):
            record_accepted(tmp_path, signed)
    assert (tmp_path / ACCEPTED_NAME).read_bytes() == before


def test_the_same_version_is_not_written_again(tmp_path: Path) -> None:
    record_accepted(tmp_path, SignedVersion(3, A))
    before = (tmp_path / ACCEPTED_NAME).stat()
    record_accepted(tmp_path, SignedVersion(3, A))
    assert (tmp_path / ACCEPTED_NAME).stat().st_ino == before.st_ino


def test_what_a_killed_takeoff_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / f".{ACCEPTED_NAME}.dead.part").write_bytes(b"half")
    record_accepted(tmp_path, SignedVersion(3, A))
    assert [path.name for path in tmp_path.iterdir()] == [ACCEPTED_NAME]


def test_a_damaged_record_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / ACCEPTED_NAME
    path.write_bytes(b"damaged")
    with pytest.raises(TakeoffRefusedError, match="damaged"):
        record_accepted(tmp_path, SignedVersion(9, A))
    assert path.read_bytes() == b"damaged"


def test_a_state_folder_that_cannot_be_written_refuses_the_takeoff(tmp_path: Path) -> None:
    with pytest.raises(TakeoffRefusedError, match=r"gone/accepted_manifest: version 3 cannot be recorded"):
        record_accepted(tmp_path / "gone", SignedVersion(3, A))


def test_a_version_that_a_killed_takeoff_had_written_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_accepted(tmp_path, SignedVersion(3, "a" * 64))
    fsynced: list[Path] = []
    monkeypatch.setattr(DISK, "fsync_folder", fsynced.append)
    record_accepted(tmp_path, SignedVersion(3, "a" * 64))
    assert fsynced == [tmp_path]
