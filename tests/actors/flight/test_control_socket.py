"""The door of the flight process: declarations come in and are answered, whatever else knocks."""

from __future__ import annotations

import contextlib
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actors.flight.control_socket import (
    CALLERS_MAX,
    PACKET_MAX_BYTES,
    SOCKET_NAME,
    ControlSocket,
    Declaration,
    DeclarationReply,
    _limit_waits,
    declare,
)
from messages import (
    AirborneDeclared,
    DeclarationAccepted,
    DeclarationRefused,
    DeclareAirborne,
    DeclareLanded,
    FlightProcessError,
    JournalError,
    decode_json,
    encode_json,
)

ACCEPTED = DeclarationAccepted("demo-000001", 1)


def accept(command: Declaration) -> DeclarationReply:
    return ACCEPTED


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Path]:
    with ControlSocket(tmp_path, accept):
        yield tmp_path


def knock(directory: Path) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _limit_waits(caller, 10)
    caller.connect(str(directory / SOCKET_NAME))
    return caller


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def answer_to(directory: Path, packet: bytes) -> object:
    with knock(directory) as caller:
        caller.send(packet)
        return decode_json(caller.recv(65536))


def test_a_declaration_reaches_the_handler_and_its_answer_comes_back(tmp_path: Path) -> None:
    heard: list[Declaration] = []

    def handle(command: Declaration) -> DeclarationReply:
        heard.append(command)
        return ACCEPTED if isinstance(command, DeclareAirborne) else DeclarationRefused("not airborne")

    with ControlSocket(tmp_path, handle):
        assert declare(tmp_path, DeclareAirborne()) == ACCEPTED
        assert declare(tmp_path, DeclareLanded()) == DeclarationRefused("not airborne")
    assert heard == [DeclareAirborne(), DeclareLanded()]


def test_a_state_folder_deeper_than_a_socket_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 200)
    folder.mkdir()
    with ControlSocket(folder, accept):
        assert declare(folder, DeclareAirborne()) == ACCEPTED


def test_only_its_own_user_may_knock(door: Path) -> None:
    mode = (door / SOCKET_NAME).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert mode & 0o777 == 0o600


def test_a_closed_door_is_gone_with_its_thread_and_descriptors(tmp_path: Path) -> None:
    before = open_descriptors()
    control = ControlSocket(tmp_path, accept)
    assert control.close()  # before the start: nothing to do
    control.start()
    assert control.close(10)
    assert control.close(10)
    assert not (tmp_path / SOCKET_NAME).exists()
    assert open_descriptors() == before


def test_the_socket_file_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    killed = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    killed.bind(str(tmp_path / SOCKET_NAME))
    killed.close()
    with ControlSocket(tmp_path, accept):
        assert declare(tmp_path, DeclareAirborne()) == ACCEPTED


def test_a_file_of_another_kind_in_its_place_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / SOCKET_NAME).write_text("precious")
    before = open_descriptors()
    with pytest.raises(FlightProcessError, match=rf"{SOCKET_NAME}: cannot listen: .*\[flight\] state"):
        ControlSocket(tmp_path, accept).start()
    assert (tmp_path / SOCKET_NAME).read_text() == "precious"
    assert open_descriptors() == before


def test_a_missing_folder_is_refused_by_both_sides(tmp_path: Path) -> None:
    with pytest.raises(FlightProcessError, match="cannot listen"):
        ControlSocket(tmp_path / "nowhere", accept).start()
    with pytest.raises(FlightProcessError, match=r"no flight process listens in .*; start it with `c7 fly`"):
        declare(tmp_path / "nowhere", DeclareLanded())


def test_declaring_to_nobody_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FlightProcessError, match="start it with `c7 fly`"):
        declare(tmp_path, DeclareAirborne())
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dead.bind(str(tmp_path / SOCKET_NAME))
    dead.close()
    with pytest.raises(FlightProcessError, match="start it with `c7 fly`"):
        declare(tmp_path, DeclareAirborne())


def test_a_silent_caller_holds_up_nobody(tmp_path: Path) -> None:
    with ControlSocket(tmp_path, accept, request_timeout_s=3600), knock(tmp_path):
        assert declare(tmp_path, DeclareAirborne()) == ACCEPTED


def test_a_silent_caller_is_let_go(tmp_path: Path) -> None:
    with ControlSocket(tmp_path, accept, request_timeout_s=0.01), knock(tmp_path) as silent:
        assert silent.recv(10) == b""


def test_a_crowd_of_silent_callers_does_not_shut_the_door(tmp_path: Path) -> None:
    with ControlSocket(tmp_path, accept, request_timeout_s=3600):
        crowd = [knock(tmp_path) for _ in range(CALLERS_MAX)]
        assert declare(tmp_path, DeclareAirborne()) == ACCEPTED
        assert crowd[0].recv(10) == b""  # the oldest made room
        for caller in crowd:
            caller.close()
        assert declare(tmp_path, DeclareAirborne()) == ACCEPTED


def test_callers_that_hang_up_at_once_are_no_trouble(door: Path) -> None:
    for _ in range(50):
        knock(door).close()
    with knock(door) as rude:
        rude.send(encode_json(DeclareAirborne()))
    assert declare(door, DeclareAirborne()) == ACCEPTED


def test_a_caller_that_goes_on_talking_is_hung_up_on(door: Path) -> None:
    with knock(door) as caller, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while True:
            caller.send(encode_json(DeclareAirborne()))
    assert declare(door, DeclareLanded()) == ACCEPTED


@pytest.mark.parametrize(
    ("packet", "detail"),
    [
        (b"{", "not a message"),
        (b"\xff\x00", "not a message"),
        (b"[" * 4000, "not a message"),
        (b'{"type":"DeclareAirborne","now":true}', "not a message"),
        (b" " * (PACKET_MAX_BYTES + 1), "at most 4096 bytes"),
        (b" " * 60_000, "at most 4096 bytes"),
        (encode_json(AirborneDeclared(1)), "expected DeclareAirborne or DeclareLanded, got AirborneDeclared"),
    ],
)
def test_what_is_no_declaration_is_refused_with_its_reason(door: Path, packet: bytes, detail: str) -> None:
    answer = answer_to(door, packet)
    assert isinstance(answer, DeclarationRefused)
    assert detail in answer.detail


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=PACKET_MAX_BYTES + 100))
@example(b"\x00" * PACKET_MAX_BYTES)
def test_no_bytes_disturb_the_door(door: Path, packet: bytes) -> None:
    assert isinstance(answer_to(door, packet), DeclarationRefused)


@pytest.mark.parametrize(
    ("handle", "detail"),
    [
        (lambda command: (_ for _ in ()).throw(JournalError("the disk is full")), "the disk is full"),
        (lambda command: (_ for _ in ()).throw(ZeroDivisionError()), "internal error: ZeroDivisionError"),
        (lambda command: DeclarationAccepted("", 1), "has no wire form"),
    ],
)
def test_a_handler_that_fails_is_a_refusal_and_the_door_stays_open(
    tmp_path: Path, handle: Callable[[Declaration], DeclarationReply], detail: str
) -> None:
    with ControlSocket(tmp_path, handle):
        for _ in range(2):
            answer = declare(tmp_path, DeclareAirborne())
            assert isinstance(answer, DeclarationRefused)
            assert detail in answer.detail


def test_a_handler_that_hangs_hurts_neither_caller_nor_close_for_longer_than_they_allow(tmp_path: Path) -> None:
    entered, freed = threading.Event(), threading.Event()

    def handle(command: Declaration) -> DeclarationReply:
        entered.set()
        freed.wait(10)
        return ACCEPTED

    control = ControlSocket(tmp_path, handle)
    control.start()
    with pytest.raises(FlightProcessError, match=r"gave no answer: silent for 0\.05 s.*unknown; declare it again"):
        declare(tmp_path, DeclareAirborne(), timeout_s=0.05)
    assert entered.wait(10)
    assert not control.close(0.01)
    freed.set()
    assert control.close(10)


@pytest.mark.parametrize(
    ("reply", "why"),
    [(b"", "it hung up"), (b"what?", "not a message"), (encode_json(DeclareLanded()), "it said DeclareLanded")],
)
def test_an_answer_that_is_none_leaves_the_outcome_unknown_and_says_so(tmp_path: Path, reply: bytes, why: str) -> None:
    def impostor(listener: socket.socket) -> None:
        caller, _ = listener.accept()
        with caller:
            caller.recv(100)
            if reply:
                caller.send(reply)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen(1)
        thread = threading.Thread(target=impostor, args=(listener,))
        thread.start()
        with pytest.raises(FlightProcessError, match=f"gave no answer: {why}.*is unknown"):
            declare(tmp_path, DeclareAirborne())
        thread.join(10)


def test_a_door_that_nobody_answers_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen(0)
        with knock(tmp_path), pytest.raises(FlightProcessError, match=r"cannot be reached: busy for 0\.05 s"):
            declare(tmp_path, DeclareAirborne(), timeout_s=0.05)
