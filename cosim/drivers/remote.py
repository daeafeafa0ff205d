"""Members in other processes: identity of the other end of a connection, and limits on its messages.

mosaik's protocol has no sender and no limit. A process that a run has started is identified by the system user that
holds its end of the connection; one elsewhere proves by HMAC that it has the secret, which itself never crosses the
wire (nothing is encrypted). What is no message of the protocol ends the connection, at once and with the reason.
"""

from __future__ import annotations

import asyncio
import ctypes
import hmac
import ipaddress
import json
import os
import re
import secrets
import signal
import sys
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from typing import Any

from mosaik_api_v3.connection import Channel, EndOfRequests

from cosim.errors import ScenarioError

MESSAGE_BYTES = 1 << 28
"""Largest message that is taken; 100 000 numbers are 2 MB."""
_FIRST_BYTES = 1 << 24
_GREETING = b"aidc-cosim "
_HELLO_S = 10.0
"""Time limit in s for the authentication of a connection."""
_PR_SET_PDEATHSIG = 1


class BoundedReader:
    """A stream's `readexactly` that refuses what is too large; `first`: bytes that were read from it already."""

    def __init__(self, reader: StreamReader, first: bytes = b"", most: int = MESSAGE_BYTES) -> None:
        self._reader, self._first, self._most = reader, first, most

    async def readexactly(self, count: int) -> bytes:
        """As of a StreamReader. ValueError for a message above the limit."""
        if count > self._most:
            raise ValueError(f"it announced a message of {count / 1e6:.0f} MB; at most {self._most / 1e6:.0f} MB are "
                             "taken")
        mine, self._first = self._first[:count], self._first[count:]
        return mine + await self._reader.readexactly(count - len(mine)) if len(mine) < count else mine


class GuardedChannel(Channel):
    """mosaik's channel, which closes upon bytes that are no message, instead of waiting for ever; `reason` holds the
    cause."""

    reason = ""

    def __init__(self, reader: StreamReader, writer: StreamWriter, name: str | None = None, first: bytes = b"") -> None:
        bounded = BoundedReader(reader, first)
        super().__init__(bounded, writer, name)  # type: ignore[arg-type]  # it reads by readexactly alone

    async def send(self, value: Any) -> Any:
        """As of a Channel; IncompleteReadError also when the connection ended before."""
        if self._receiver_task.done():
            raise asyncio.IncompleteReadError(b"", None)
        return await super().send(value)

    async def _receive_forever(self) -> None:
        try:
            await super()._receive_forever()
        except asyncio.CancelledError:
            raise
        except Exception as err:
            if isinstance(err, ValueError) and "message of" in str(err):
                self.reason = str(err)
            elif not isinstance(err, ConnectionError):
                self.reason = f"what it sent is no message of mosaik's protocol ({type(err).__name__})"
            for waiting in self._outgoing_request_futures.values():
                if not waiting.done():
                    waiting.set_exception(asyncio.IncompleteReadError(b"", None))
            self._incoming_requests.put_nowait(EndOfRequests())


def address_of(text: str) -> tuple[str, int] | None:
    """(host, port) of 'HOST:PORT' or '[IPV6]:PORT'; None for what is neither."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\s\[\]]+)):(\d{1,5})", text.strip())
    if found is None or int(found[3]) > 65535:
        return None
    return found[1] or found[2], int(found[3])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def secret_of(variable: str | None, what: str) -> bytes | None:
    """The secret in an environment variable; None without a name. ScenarioError for one that is not set, or short."""
    if variable is None:
        return None
    secret = os.environ.get(variable, "")
    if len(secret) < 16:
        raise ScenarioError(f"{what}: the environment variable {variable} "
                            f"{'is not set' if not secret else 'holds fewer than 16 characters'}; give both sides one "
                            "secret, for example of python -c 'import secrets; print(secrets.token_hex())'")
    return secret.encode()


def is_same_user(writer: StreamWriter) -> bool:
    """Whether the other end of a loopback connection belongs to this process's user, by the system's table of
    connections; True where the system has none (not Linux)."""
    theirs, ours = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    if not Path("/proc/net/tcp").is_file():
        return True
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, *_, uid = line.split()[:8]
            if int(local.rpartition(":")[2], 16) == theirs[1] and int(remote.rpartition(":")[2], 16) == ours[1]:
                return int(uid) == os.getuid()
    return False


def child_options() -> dict[str, Any]:
    """Arguments of `subprocess.Popen` by which a child ends when its parent does, even by kill -9; {} where the system
    has no such thing (not Linux)."""
    return {"preexec_fn": _die_with_parent} if sys.platform == "linux" else {}


def _die_with_parent() -> None:
    """In a child before it starts its program: its end is sent to it when its parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def prove(reader: StreamReader, writer: StreamWriter, secret: bytes) -> None:
    """Reply to a server's challenge. ScenarioError when none comes, or the reply is rejected."""
    try:
        greeting = await asyncio.wait_for(reader.readline(), _HELLO_S)
        if not greeting.startswith(_GREETING):
            raise ScenarioError("it asks for no secret; start it by cosim serve --remote --secret VARIABLE, "
                                "or leave secret out")
        nonce = greeting.removeprefix(_GREETING).strip()
        writer.write(_answer(secret, nonce) + b"\n")
        await writer.drain()
        if await asyncio.wait_for(reader.readline(), _HELLO_S) != b"ok\n":
            raise ScenarioError("it does not share this secret")
    except (TimeoutError, OSError, ValueError):
        raise ScenarioError("it does not answer as cosim serve with a secret does") from None


async def is_run(reader: StreamReader, writer: StreamWriter, secret: bytes | None) -> bytes | None:
    """First request of a connected scenario (its `init`), after proof of the secret if there is one; None
    for a connection that is no scenario's."""
    try:
        return await asyncio.wait_for(_first_message(reader, writer, secret), _HELLO_S)
    except (TimeoutError, OSError, asyncio.IncompleteReadError, ValueError):
        return None


async def _first_message(reader: StreamReader, writer: StreamWriter, secret: bytes | None) -> bytes | None:
    if secret is not None:
        nonce = secrets.token_hex().encode()
        writer.write(_GREETING + nonce + b"\n")
        await writer.drain()
        if not hmac.compare_digest((await reader.readline()).strip(), _answer(secret, nonce)):
            return None
        writer.write(b"ok\n")
        await writer.drain()
    bounded = BoundedReader(reader, most=_FIRST_BYTES)
    head = await bounded.readexactly(4)
    body = await bounded.readexactly(int.from_bytes(head, "big"))
    message: Any = json.loads(body)
    return head + body if isinstance(message, list) and len(message) == 3 and message[2][:1] == ["init"] else None


def _answer(secret: bytes, nonce: bytes) -> bytes:
    return hmac.new(secret, nonce, "sha256").hexdigest().encode()
