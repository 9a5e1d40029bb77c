"""The door of a running flight process: a local socket that takes declarations, one message each way.

AF_UNIX SOCK_SEQPACKET: a packet is a message, so there is no framing, and a peer that dribbles cannot exist. The
address goes through /proc/self/fd, because a socket address has 108 bytes and a state folder may be deeper than that.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Final

from loguru import logger

from messages import (
    C7Error,
    DeclarationAccepted,
    DeclarationRefused,
    DeclareAirborne,
    DeclareLanded,
    FlightProcessError,
    WireFormatError,
    decode_json,
    describe_error,
    encode_json,
)

SOCKET_NAME: Final = "control.sock"
PACKET_MAX_BYTES: Final = 4096
CALLERS_MAX: Final = 16
"""Connections that may wait at once; one more closes the oldest, so that silent callers never shut the door."""
ACCEPT_PAUSE_S: Final = 0.1

Declaration = DeclareAirborne | DeclareLanded
DeclarationReply = DeclarationAccepted | DeclarationRefused


class ControlSocket:
    """Serves `control.sock` (mode 0600) in `directory` on one daemon thread, between `start` and `close`.

    `handle` runs on that thread, for one caller at a time, and may block for an fsync; what it raises becomes a
    refusal. A caller that says nothing is closed after `request_timeout_s`. The caller of `start` holds the flight
    lock: a socket file that a killed process left is replaced.
    """

    def __init__(
        self, directory: Path, handle: Callable[[Declaration], DeclarationReply], *, request_timeout_s: float = 1.0
    ) -> None:
        self._directory = directory
        self._handle = handle
        self._request_timeout_s = request_timeout_s
        self._stopping = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Listen. Raises FlightProcessError where the folder does not take a socket."""
        with contextlib.ExitStack() as undo:
            try:
                folder_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
                undo.callback(os.close, folder_fd)
                _remove_socket(folder_fd)
                listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                listener.setblocking(False)
                listener.bind(_address(folder_fd))
                # Before listen(): nobody can connect in the meantime.
                os.chmod(SOCKET_NAME, 0o600, dir_fd=folder_fd)
                listener.listen(CALLERS_MAX)
            except OSError as error:
                raise FlightProcessError(
                    f"{self._directory / SOCKET_NAME}: cannot listen: {error}. Expected [flight] state to name a "
                    "folder of a local disk that this user may write"
                ) from error
            undo.pop_all()
        self._folder_fd = folder_fd
        self._listener = listener
        self._wake, self._woken = socket.socketpair()
        self._thread = Thread(target=self._serve, name="c7-control", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Stop listening and remove the socket file. False where `handle` hung and its thread had to be left."""
        if self._thread is None:
            return True
        if not self._stopping.is_set():
            try:
                _remove_socket(self._folder_fd)
            except OSError as error:  # what is left behind, the next start replaces
                logger.warning("C7 control socket left behind; file={} error={}", self._directory, error)
            os.close(self._folder_fd)
            self._stopping.set()
            self._wake.close()  # which is what wakes the thread
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def __enter__(self) -> ControlSocket:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self) -> None:
        callers: dict[socket.socket, float] = {}  # each with the time when it is given up, oldest first
        with contextlib.ExitStack() as ending:
            ending.enter_context(self._listener)
            ending.enter_context(self._woken)
            selector = ending.enter_context(selectors.DefaultSelector())
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)

            def hang_up(caller: socket.socket) -> None:
                del callers[caller]
                selector.unregister(caller)
                caller.close()

            while not self._stopping.is_set():
                until_s = min(callers.values(), default=time.monotonic() + 1.0)
                ready = [key for key, _ in selector.select(max(0.0, until_s - time.monotonic()))]
                # The listener last: who has spoken is answered before a newcomer could take its place.
                for key in sorted(ready, key=lambda key: key.fileobj is self._listener):
                    if key.fileobj is self._listener:
                        if len(callers) == CALLERS_MAX:
                            hang_up(next(iter(callers)))
                        caller = self._accept()
                        if caller is not None:
                            selector.register(caller, selectors.EVENT_READ)
                            callers[caller] = time.monotonic() + self._request_timeout_s
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in callers:
                        self._answer(key.fileobj)
                        hang_up(key.fileobj)
                now_s = time.monotonic()
                for caller in [caller for caller, until_s in callers.items() if until_s <= now_s]:
                    hang_up(caller)
            for caller in list(callers):
                hang_up(caller)

    def _accept(self) -> socket.socket | None:
        try:
            caller, _ = self._listener.accept()
        except BlockingIOError:
            return None  # the caller has gone again
        except OSError as error:
            logger.warning("C7 control socket cannot accept; error={}", error)
            self._stopping.wait(ACCEPT_PAUSE_S)  # without free file descriptors it would spin
            return None
        caller.setblocking(False)
        return caller

    def _answer(self, caller: socket.socket) -> None:
        try:
            packet = caller.recv(PACKET_MAX_BYTES + 1)
            if packet:
                caller.send(self._reply_to(packet))
        except OSError as error:  # the caller hung up, and its answer with it
            logger.debug("C7 control socket: a caller went away; error={}", error)

    def _reply_to(self, packet: bytes) -> bytes:
        try:
            return encode_json(self._handle(_read_command(packet)))
        except C7Error as error:
            return encode_json(DeclarationRefused(describe_error(error)))
        except Exception as error:  # noqa: BLE001  # this thread is the only door: a bug behind it must not shut it
            logger.opt(exception=error).error("C7 declaration failed; error={}", describe_error(error))
            return encode_json(DeclarationRefused(f"internal error: {type(error).__name__}; the log has more"))


def declare(directory: Path, command: Declaration, timeout_s: float = 5.0) -> DeclarationReply:
    """Tell the flight process of that state folder, and wait for its answer. Any thread.

    Raises FlightProcessError where nobody listens, or where no answer came in time: then it is unknown whether the
    declaration was taken. Declaring the same again is harmless.
    """
    deadline_s = time.monotonic() + timeout_s
    with contextlib.ExitStack() as ending:
        try:
            folder_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            ending.callback(os.close, folder_fd)
            caller = ending.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            _limit_waits(caller, timeout_s)
            caller.connect(_address(folder_fd))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            raise FlightProcessError(
                f"no flight process listens in {directory}; start it with `c7 fly`, or name the plan that it flies"
            ) from error
        except OSError as error:
            why = f"busy for {timeout_s:g} s" if isinstance(error, BlockingIOError) else str(error)
            raise FlightProcessError(
                f"{directory / SOCKET_NAME}: cannot be reached: {why}. Expected a flight process of this same user; "
                "try again"
            ) from error
        try:
            caller.send(encode_json(command))
            _limit_waits(caller, deadline_s - time.monotonic())
            packet = caller.recv(PACKET_MAX_BYTES + 1)
        except BlockingIOError as error:
            raise _no_answer(directory, f"silent for {timeout_s:g} s") from error
        except OSError as error:
            raise _no_answer(directory, str(error)) from error
    if not packet:
        raise _no_answer(directory, "it hung up")
    try:
        reply = decode_json(packet)
    except WireFormatError as error:
        raise _no_answer(directory, describe_error(error)) from error
    if not isinstance(reply, DeclarationAccepted | DeclarationRefused):
        raise _no_answer(directory, f"it said {type(reply).__name__}")
    return reply


def _read_command(packet: bytes) -> Declaration:
    if len(packet) > PACKET_MAX_BYTES:
        raise WireFormatError(f"a request has at most {PACKET_MAX_BYTES} bytes")
    command = decode_json(packet)
    if not isinstance(command, DeclareAirborne | DeclareLanded):
        raise WireFormatError(f"expected DeclareAirborne or DeclareLanded, got {type(command).__name__}")
    return command


def _limit_waits(caller: socket.socket, timeout_s: float) -> None:
    """Bound each call by the kernel's own timeouts (socket(7), SO_SNDTIMEO), after which it is a BlockingIOError.

    `settimeout` would make the socket non-blocking, and then connecting while others wait at the door fails at once.
    """
    microseconds = max(1_000, round(timeout_s * 1_000_000))  # zero would mean for ever
    timeval = struct.pack("ll", *divmod(microseconds, 1_000_000))
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)


def _address(folder_fd: int) -> str:
    return f"/proc/self/fd/{folder_fd}/{SOCKET_NAME}"


def _remove_socket(folder_fd: int) -> None:
    """Remove a socket file, and nothing else: bind then refuses a file of another kind by itself."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(SOCKET_NAME, dir_fd=folder_fd, follow_symlinks=False).st_mode):
            os.unlink(SOCKET_NAME, dir_fd=folder_fd)


def _no_answer(directory: Path, why: str) -> FlightProcessError:
    return FlightProcessError(
        f"the flight process in {directory} gave no answer: {why}. Whether it took the declaration is unknown; declare "
        "it again, which is harmless"
    )
