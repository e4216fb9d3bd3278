"""Where the status server listens, and by which names it may be called."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple

from audience_sync.config.placeholder import is_placeholder

LISTEN = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>[0-9]{1,5})\Z")
HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")
SHORTEST_TOKEN = 16
LONGEST_TOKEN = 1_000


class Listen(NamedTuple):
    """``host`` is an IP address without brackets; ``port`` 0: any that is free."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.host).is_loopback


def listen(text: str) -> Listen:
    """Parses ``"127.0.0.1:8340"``, ``"[::1]:8340"`` or ``"localhost:8340"``.

    Raises:
        ValueError: a name, which may mean anything tomorrow, no port, or not of this form.
    """
    match = LISTEN.match(text)
    if match is None:
        raise ValueError('write an address and a port, such as "127.0.0.1:8340"')
    host, port = match["host"], int(match["port"])
    if port > 65535:
        raise ValueError("the port must be a number up to 65535")
    if host == "localhost":
        return Listen("127.0.0.1", port)
    if not host:
        raise ValueError('names no address; write "127.0.0.1" for this machine')
    try:
        # Brackets are for IPv6, and only IPv6 has them.
        address = ip_address(host.strip("[]"))
    except ValueError:
        address = None
    if address is None or (address.version == 6) is not host.startswith("["):
        raise ValueError('the address must be an IP, such as "127.0.0.1" or "[::1]"')
    return Listen(str(address), port)


def host_name(text: str) -> str:
    """A name in lower case by which people reach the server, without scheme and port.

    Raises:
        ValueError: not such a name.
    """
    name = text.lower().rstrip(".")
    if not HOST.match(name):
        raise ValueError('write a host name without scheme and port, such as "sync.example.com"')
    return name


def token(text: str) -> str:
    """What may stand after ``Bearer`` (RFC 6750) and cannot be guessed.

    Raises:
        ValueError: too short or too long, holds other characters, or is only a placeholder.
    """
    if is_placeholder(text):
        raise ValueError("is a placeholder, not a token; openssl rand -hex 24 makes one")
    if len(text) < SHORTEST_TOKEN:
        what = "is empty" if not text else f"has fewer than {SHORTEST_TOKEN} characters"
        raise ValueError(f"{what}; openssl rand -hex 24 makes one")
    if len(text) > LONGEST_TOKEN or not TOKEN.match(text):
        raise ValueError("may hold A-Z a-z 0-9 - . _ ~ + / and = at its end; at most 1,000")
    return text
