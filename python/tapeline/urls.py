"""URLs of sources and destinations: checked once, here, before anything is opened.

`udp://HOST:PORT`, `tcp://HOST:PORT` (listens), `tcp+connect://HOST:PORT`, `file://PATH`, `shm://NAME` (a ring in shared
memory, see `tapeline.ring`) and `-` (standard input).
A host that is a multicast group is joined. An empty host means 127.0.0.1. What follows `?` are settings of
the stream (`?assembly=markers&ring_bytes=64MiB`); `interface=ADDRESS` chooses where a group is joined.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote

from tapeline.errors import ConfigError

Kind = Literal["udp", "tcp", "tcp+connect", "file", "stdin", "shm"]

_NETWORK: tuple[Kind, ...] = ("udp", "tcp", "tcp+connect")
_FORMS = "udp://HOST:PORT, tcp://HOST:PORT, tcp+connect://HOST:PORT, file://PATH, -"
_SOURCE_FORMS = f"{_FORMS}, shm://NAME"
_LATER = {"kafka": "Kafka topics"}
_DEFAULT_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Source:
    """Where bytes come from.

    Attributes:
        kind: `udp`, `tcp` (listen), `tcp+connect`, `file`, `shm` or `stdin`.
        url: The text it was made from.
        address: `ADDRESS:PORT` with the host resolved, IPv6 in brackets; None for files, rings and stdin.
        path: The file, or the name of the ring; None otherwise.
        group: Multicast group to join; None otherwise.
        interface: Address of the interface to join it on; None lets the system choose.
    """

    kind: Kind
    url: str
    address: str | None = None
    path: str | None = None
    group: str | None = None
    interface: str | None = None

    @property
    def listens(self) -> bool:
        """True when others send to us."""
        return self.kind in {"udp", "tcp"}

    @property
    def beyond_loopback(self) -> bool:
        """True when it listens where other machines can reach it; a multicast group is asked for by name."""
        if not self.listens or self.group is not None or self.address is None:
            return False
        host = self.address.rpartition(":")[0].strip("[]")
        return not ipaddress.ip_address(host.partition("%")[0]).is_loopback

    def as_dict(self) -> dict[str, str | None]:
        """The form the compiled recorder takes."""
        return {name: getattr(self, name) for name in ("kind", "url", "address", "path", "group", "interface")}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where bytes are sent: `tcp://` connects here, because the other side listens.

    Attributes:
        kind: `udp`, `tcp` or `file`.
        url: The text it was made from.
        host: Resolved address; None for files.
        port: 1 to 65,535; None for files.
        path: The file, `-` for standard output; None otherwise.
    """

    kind: Literal["udp", "tcp", "file"]
    url: str
    host: str | None = None
    port: int | None = None
    path: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """The form the compiled senders take."""
        host = f"[{self.host}]" if self.host is not None and ":" in self.host else self.host
        address = None if host is None else f"{host}:{self.port}"
        return {"kind": self.kind, "url": self.url, "address": address, "path": self.path}


def parse_source(url: str) -> tuple[Source, dict[str, str]]:
    """Read a source URL.

    >>> source, settings = parse_source("udp://:9001?assembly=markers")
    >>> source.address, settings
    ('127.0.0.1:9001', {'assembly': 'markers'})

    Args:
        url: One of the forms at the head of this module. Host names are resolved now.

    Returns:
        The source, and the settings after `?` except `interface`, as text.

    Raises:
        ConfigError: The text is none of the forms, or the host has no address.
    """
    scheme, rest, query = _split(url)
    if scheme == "-":
        return Source("stdin", url), query
    if scheme == "file":
        return Source("file", url, path=_path(rest, url)), query
    if scheme == "shm":
        return Source("shm", url, path=_ring(rest, url)), query
    if scheme not in _NETWORK:
        raise _unknown_scheme(scheme, url, _SOURCE_FORMS)
    interface = query.pop("interface", None)
    host, port = _host_port(rest, url, may_be_zero=scheme != "tcp+connect")
    address = _resolve(host, port, url, datagrams=scheme == "udp")
    group = address if ipaddress.ip_address(address.partition("%")[0]).is_multicast else None
    if group is not None and scheme != "udp":
        raise ConfigError(f"{url}: {address} is a multicast group, which only udp:// can join")
    if interface is not None:
        _check_interface(interface, group, url)
    shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return Source(scheme, url, address=shown, group=group, interface=interface), query


def parse_destination(url: str) -> Destination:
    """Read the URL of a destination (`simulate --to`, `replay --to`).

    Args:
        url: `udp://HOST:PORT`, `tcp://HOST:PORT` or `tcp+connect://HOST:PORT` (both connect), `file://PATH`, `-`.

    Returns:
        The destination with its host resolved.

    Raises:
        ConfigError: The text is none of the forms, has settings after `?`, or the host has no address.
    """
    scheme, rest, query = _split(url)
    if query:
        raise ConfigError(f"{url}: a destination takes no settings after '?'")
    if scheme == "-":
        return Destination("file", url, path="-")
    if scheme == "file":
        return Destination("file", url, path=_path(rest, url))
    if scheme not in _NETWORK:
        raise _unknown_scheme(scheme, url, _FORMS)
    host, port = _host_port(rest, url, may_be_zero=False)
    datagrams = scheme == "udp"
    return Destination(
        "udp" if datagrams else "tcp", url, host=_resolve(host, port, url, datagrams=datagrams), port=port
    )


def _split(url: str) -> tuple[str, str, dict[str, str]]:
    if not url.isprintable() or len(url) > 4096:
        raise ConfigError(f"{url[:80]!r} is not a URL; allowed: {_FORMS}")
    body, question, query_text = url.partition("?")
    try:
        pairs = parse_qsl(query_text, keep_blank_values=True, strict_parsing=True) if question else []
    except ValueError:
        raise ConfigError(f"{url}: what follows '?' must be NAME=VALUE pairs joined by '&'") from None
    query: dict[str, str] = {}
    for name, value in pairs:
        if name in query:
            raise ConfigError(f"{url}: {name!r} is given twice")
        query[name] = value
    if body == "-":
        return "-", "", query
    scheme, separator, rest = body.partition("://")
    if not separator or not re.fullmatch(r"[a-z][a-z+]*", scheme):
        raise ConfigError(f"{url!r} is not a URL; allowed: {_FORMS}")
    return scheme, rest, query


def _unknown_scheme(scheme: str, url: str, forms: str) -> ConfigError:
    if scheme in _LATER:
        return ConfigError(f"{url}: {_LATER[scheme]} are not in this version; allowed: {forms}")
    return ConfigError(f"{url}: unknown scheme {scheme!r}; allowed: {forms}")


def _path(rest: str, url: str) -> str:
    path = unquote(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest)
    if not path or "\0" in path:
        raise ConfigError(f"{url}: a file URL needs a path, as in file://capture.dat or file:///data/capture.dat")
    return path


def _ring(rest: str, url: str) -> str:
    name = unquote(rest)
    if not name or "\0" in name or name in {".", ".."}:
        raise ConfigError(f"{url}: a ring needs a name, as in shm://battery, or a path, as in shm:///data/battery.ring")
    return name


def _host_port(rest: str, url: str, *, may_be_zero: bool) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:/@]*):([0-9]{1,5})/?", rest, re.ASCII)
    if match is None:
        raise ConfigError(f"{url}: expected HOST:PORT, as in 127.0.0.1:9001, [::1]:9001 or :9001")
    port = int(match[2])
    if port > 65535 or (port == 0 and not may_be_zero):
        raise ConfigError(f"{url}: port {port} is not in {0 if may_be_zero else 1}..65535")
    return match[1].strip("[]") or _DEFAULT_HOST, port


def _resolve(host: str, port: int, url: str, *, datagrams: bool) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{url}: no address for host {host!r}: {reason}") from None
    # IPv4 first: a name such as localhost then means the same address for both sides
    addresses = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return str(addresses[0][4][0])


def _check_interface(interface: str, group: str | None, url: str) -> None:
    if group is None:
        raise ConfigError(f"{url}: 'interface' goes with a multicast group; this host is none")
    try:
        same = ipaddress.ip_address(interface).version == ipaddress.ip_address(group).version
    except ValueError:
        same = False
    if not same:
        raise ConfigError(f"{url}: interface {interface!r} is not an address of the same family as {group}")
