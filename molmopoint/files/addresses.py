"""Addresses: which are on this machine, and pictures from them: `data:` ones are decoded, those of the web
fetched from public hosts.

An address that a stranger sends may name a host that only this machine can reach: a router, a cloud's
metadata service, a database. So every host is looked up once, all of its addresses must be public, and the
connection goes to the address that was checked. Each redirect is a new address and checked like the first.
Proxies of the environment are not used, for they would look up the host again.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import ipaddress
import re
import socket
import threading
import time
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from molmopoint.errors import ProcessingError

MAX_FETCHED_BYTES = 64 * 2**20
"""Most bytes of a fetched picture."""

_SECONDS = 20.0
"""Longest time of a fetch, redirects included."""

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AT_ONCE = 2**16
_PORTS = {"http": 80, "https": 443}
_DATA = re.compile(
    r"data:(?P<type>[^,;]*)(?P<parameters>(?:;[^,;]*)*),(?P<content>.*)", re.DOTALL | re.IGNORECASE
)
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv6 addresses behind which a gateway reaches the IPv4 address in their last 32 bits (RFC 6052)."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")
_WEB = re.compile(r"https?://", re.IGNORECASE)
_REACHED_BY_HOST = ("http", "https", "ws", "wss")
_REACHED_WITHOUT_HOST = ("data", "blob", "about")


def is_address(source: str) -> bool:
    """Whether this is an address of any kind, `scheme:/...` or `data:...`, and no path; a drive, `C:/`, is
    none.
    """
    return _ADDRESS.match(source) is not None


def is_data_address(source: str) -> bool:
    """Whether this is a picture written as text, `data:image/png;base64,...`."""
    return source[:5].lower() == "data:"


def is_web_address(source: str) -> bool:
    """Whether this is an address of the web, `http://...` or `https://...`."""
    return _WEB.match(source) is not None


def is_local_address(address: str) -> bool:
    """Whether an address is on this machine: a file, or a server at a loopback address."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return False
    if parts.scheme in _REACHED_WITHOUT_HOST:
        return True
    if parts.scheme == "file":
        return host in (None, "", "localhost")
    if parts.scheme not in _REACHED_BY_HOST or not host:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_reached_by_host(address: str) -> bool:
    """Whether a browser asks a host, or a disk, for what an address names; else it stands in the address, or
    nowhere.
    """
    return urlsplit(address).scheme not in _REACHED_WITHOUT_HOST


def bytes_of_data_address(address: str) -> bytes:
    """The bytes that are written in an address.

    Raises:
        ProcessingError: it is no such address, or its text is no base64.
    """
    found = _DATA.fullmatch(address)
    if found is None:
        raise ProcessingError(
            f"expected data:image/png;base64,... , got {address[:40]!r}; write the bytes of the picture "
            "behind the comma"
        )
    text = "".join(found["content"].split())
    try:
        if ";base64" not in found["parameters"].lower():
            return unquote_to_bytes(found["content"])
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProcessingError(
            f"expected base64 in a data address, got {text[:20]!r}... ({error}); encode the bytes again"
        ) from error


def fetch(address: str) -> bytes:
    """The bytes at an address of the web.

    Raises:
        ProcessingError: the host is not public, does not answer in time, or answers with something else than
            at most `MAX_FETCHED_BYTES` bytes.
    """
    deadline = time.monotonic() + _SECONDS
    current = address
    for _ in range(_MOST_REDIRECTS + 1):
        try:
            content, redirect = _ask(current, deadline)
            following = None if redirect is None else urljoin(current, redirect)
        except ProcessingError:
            raise
        except (
            OSError,
            ValueError,
            http.client.HTTPException,
        ) as error:  # of values: host names and redirects that cannot be
            raise ProcessingError(
                f"expected a picture at {_short(current)}, got {type(error).__name__}: {error}; fetch it "
                "yourself"
            ) from error
        if following is None:
            return content
        current = following
    raise ProcessingError(
        f"expected at most {_MOST_REDIRECTS} redirects from {_short(address)}, got more; pass the last "
        "address"
    )


def _ask(address: str, deadline: float) -> tuple[bytes, str | None]:
    """The content at an address, or the address it leads on to."""
    connection, path = _connection(address, deadline)
    connection.connect()
    # A server that sends a byte now and then would keep every single wait short, so the whole of it has an
    # end as well.
    end = threading.Timer(max(deadline - time.monotonic(), 0.1), _hang_up, [connection.sock])
    end.daemon = True
    end.start()
    try:
        connection.request("GET", path, headers={"Accept": "image/*", "User-Agent": "molmopoint"})
        answer = connection.getresponse()
        if answer.status in _REDIRECTS and (location := answer.getheader("Location")):
            return b"", location
        if answer.status != http.client.OK:
            raise ProcessingError(
                f"expected a picture at {_short(address)}, got status {answer.status} {answer.reason}; "
                "check the address"
            )
        return _content(answer, address, deadline), None
    finally:
        end.cancel()
        connection.close()


def _hang_up(connected: socket.socket) -> None:
    """Ends a connection that another thread waits for."""
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _connection(address: str, deadline: float) -> tuple[http.client.HTTPConnection, str]:
    """A connection to the host of an address, and what to ask it for.

    Raises:
        ProcessingError: the address cannot be read, or is of another kind.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise ProcessingError(
            f"expected an address of a picture, got {_short(address)} ({error}); correct it"
        ) from error
    if parts.scheme.lower() not in _PORTS or not parts.hostname:
        raise ProcessingError(
            f"expected an address that begins with https:// or http://, got {_short(address)}"
        )
    if parts.username is not None or parts.password is not None:
        raise ProcessingError(
            "expected an address without a name or password in it, got one; fetch the picture yourself"
        )
    scheme = parts.scheme.lower()
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection: Any = kind(
        parts.hostname, port or _PORTS[scheme], timeout=max(deadline - time.monotonic(), 0.1)
    )
    connection._create_connection = _connected  # the name is looked up, checked and connected to in one step
    path = parts.path or "/"
    if parts.query:
        path = f"{path}?{parts.query}"
    if not path.isascii() or any(character <= " " for character in path):
        raise ProcessingError(
            f"expected an address with escapes for spaces and accents, got {_short(address)}; write them as "
            "%20 and the like"
        )
    return connection, path


def _connected(place: tuple[str, int], timeout: float, source_address: Any = None) -> socket.socket:
    """A socket to a host all of whose addresses are public.

    Raises:
        ProcessingError: one of them is not.
        OSError: none can be connected to.
    """
    host, port = place
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, endpoint in found:
        check_public(str(endpoint[0]), host)
    failure: OSError | None = None
    for family, kind, protocol, _, endpoint in found:
        made = socket.socket(family, kind, protocol)
        made.settimeout(timeout)
        try:
            made.connect(endpoint)
        except OSError as error:
            made.close()
            failure = error
        else:
            return made
    raise failure or OSError(f"no address of {host}")


def check_public(number: str, host: str) -> None:
    """Refuses a numeric address that is not one of the public internet.

    Raises:
        ProcessingError: it is private, local, of this machine, or reserved.
    """
    address = ipaddress.ip_address(number.partition("%")[0])
    for each in (address, _inner(address)):
        if each is not None and (not each.is_global or each.is_multicast):
            raise ProcessingError(
                f"expected the address of a public host, got {host!r}, which is {each}, inside a private "
                "network or this machine; "
                "fetch the picture yourself and pass its bytes"
            )


def _inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _content(answer: http.client.HTTPResponse, address: str, deadline: float) -> bytes:
    """The body of an answer, read a part at a time, so that both limits hold."""
    parts: list[bytes] = []
    length = 0
    while part := answer.read1(_AT_ONCE):
        length += len(part)
        if length > MAX_FETCHED_BYTES:
            raise ProcessingError(
                f"expected at most {MAX_FETCHED_BYTES:,} bytes at {_short(address)}, got more; fetch it "
                "yourself"
            )
        parts.append(part)
    if time.monotonic() > deadline:
        raise ProcessingError(
            f"expected a picture from {_short(address)} within {_SECONDS:g} s, got a part of it; fetch it "
            "yourself"
        )
    return b"".join(parts)


def _short(address: str) -> str:
    """An address as messages name it."""
    return repr(address if len(address) <= 120 else f"{address[:117]}...")
