"""Addresses: of the store, and of a destination's API. No message holds the address itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from audience_sync.config.placeholder import is_placeholder

ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?]*)(?P<query>\?.*)?\Z",
    re.DOTALL,
)
HOST = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>.*))?\Z", re.DOTALL)
PARAMETER = re.compile(r"[?&](?P<name>[^=&?]*)=(?P<value>[^&]*)")
SECRET_PARAMETER = re.compile(
    r"password|passwd|passcode|pwd|secret|token|private_key(?!_file|_path)|api_?key"
    r"|credentials_(?:base64|info)",
    re.IGNORECASE,
)
LITERAL_PASSWORD = re.compile(r"://[^:/@\s]*:(?P<password>[^@/]*)@")
SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})
IN_A_FILE = SQLITE | {"duckdb"}
POSTGRESQL = frozenset({"postgresql", "postgresql+psycopg"})
DEFAULT_PORT = {"http": 80, "https": 443}
ENCODE = "percent-encode @ : / in user and password"


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    scheme: str
    user: str
    password: str
    host: str
    path: str
    query: str

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def parse(text: str) -> Address:
    """The parts of ``scheme://user:password@host:port/path?query``; the port is checked.

    Raises:
        ValueError: not of this form.
    """
    match = ADDRESS.match(text)
    if match is None or not text.isprintable() or " " in text:
        raise ValueError("is not an address like scheme://host/path")
    users, _, hosts = match["authority"].rpartition("@")
    host = HOST.match(hosts)
    if "@" in users or host is None:
        raise ValueError(f"cannot be taken apart; {ENCODE}")
    port = host["port"]
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError(f"has a port that is not a number up to 65535; or {ENCODE}")
    user, _, password = users.partition(":")
    return Address(
        scheme=match["scheme"].lower(),
        user=user,
        password=password,
        host=host["host"].lower(),
        path=match["path"],
        query=match["query"] or "",
    )


def secrets_of(text: str) -> set[str]:
    """The password in an address, as written and decoded, and secret-looking query values."""
    try:
        password = parse(text).password
    except ValueError:
        return set()
    found = {password, *_secret_parameters(text)}
    return {form for secret in found if secret for form in (secret, unquote(secret))}


def has_literal_password(written: str) -> bool:
    """Whether a password stands in the file itself; ``written`` is not yet filled in."""
    match = LITERAL_PASSWORD.search(written)
    values = _secret_parameters(written) + ([match["password"]] if match else [])
    return any(value and "${" not in value for value in values)


def _secret_parameters(text: str) -> list[str]:
    found = PARAMETER.finditer(text)
    return [match["value"] for match in found if SECRET_PARAMETER.search(match["name"])]


def store_url(text: str) -> str:
    """Checks a store's URL; its SQLite path is absolute already.

    Raises:
        ValueError: another database, a driver we do not have, or no place for a file.
    """
    url = parse(text)
    if url.scheme in SQLITE:
        _check_sqlite(url)
    elif url.scheme in POSTGRESQL:
        _check_postgresql(url)
    else:
        hint = "postgresql://" if url.scheme.startswith(("postgres", "pg")) else None
        raise ValueError(
            f"unknown database driver; write {hint or 'sqlite:///file.db or postgresql://…'}"
        )
    return text


def _check_sqlite(url: Address) -> None:
    if url.user or url.host:
        raise ValueError("names a host; a SQLite file has three slashes: sqlite:///state.db")
    if url.path in ("", "/", "/:memory:"):
        raise ValueError("names no file; what was told must outlive the program")
    if url.path.startswith("/file:"):
        raise ValueError("names a file: URI; write its path: sqlite:///state.db")


def _check_postgresql(url: Address) -> None:
    if "@" in url.path:
        raise ValueError(f"cannot be taken apart; {ENCODE}")
    if any(is_placeholder(part) for part in (url.user, url.password, url.host.strip("[]"))):
        raise ValueError("holds a placeholder")


def absolute_file(text: str, folder: Path) -> str:
    """``sqlite:///state.db`` (and ``duckdb:///…``) with the file in ``folder``; any other text as
    it is.

    SQLAlchemy decodes the path, so whatever stands in the folder's name is encoded. Spaces are
    encoded for whoever wrote them plainly.

    Raises:
        ValueError: the folder's name is no text.
    """
    scheme, slashes, rest = text.partition(":///")
    if scheme.lower() not in IN_A_FILE or not slashes:
        return text
    path, mark, query = rest.replace(" ", "%20").partition("?")
    if path and not path.startswith(("/", ":", "file:", "md:")):
        try:
            path = os.path.abspath(os.path.join(quote(str(folder)), path))
        except UnicodeEncodeError:
            raise ValueError("lies in a folder whose name is not UTF-8 text") from None
    return f"{scheme}:///{path}{mark}{query}"


def endpoint(text: str) -> str:
    """Checks the base address of an API; without a slash at its end.

    Raises:
        ValueError: not https (http is for loopback), user or password in it, or no base address.
    """
    url = parse(text)
    if url.scheme not in ("http", "https"):
        raise ValueError("must start with https://")
    if not url.host or is_placeholder(url.host.strip("[]")):
        raise ValueError("names no host")
    if url.user or url.password:
        raise ValueError("holds a user or password; take it out, the key is the credential")
    if url.scheme == "http" and not url.is_loopback:
        raise ValueError("sends the key in the clear; http:// is for loopback only, write https://")
    if url.query or "#" in url.path:
        raise ValueError("must end with its path, without ? and #")
    base = text.rstrip("/")
    if base.endswith(("/batch", "/identify", "/track", "/import")):
        raise ValueError("is the address of one call; write the part before it")
    return base


def canonical(text: str) -> str:
    """An endpoint without what makes no difference: case of the host, default port, last slash."""
    parts = urlsplit(text)
    host = (parts.hostname or "") if parts.port in (None, DEFAULT_PORT.get(parts.scheme)) else ""
    return f"{parts.scheme}://{host or parts.netloc.lower()}{parts.path.rstrip('/')}"
