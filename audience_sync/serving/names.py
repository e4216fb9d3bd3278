"""By which name we were called."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

HOST = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::[0-9]*)?\Z")


def is_ours(host: str, names: Collection[str] = ()) -> bool:
    """Whether a ``Host`` header may mean us; ``names`` are further ones, in lower case.

    A page in a browser can give its own name our address, but it cannot take an IP address or
    ``localhost`` for its name; and the browser tells us by which name it came.
    """
    match = HOST.match(host.lower())
    name = match["host"].rstrip(".") if match else ""
    if name in names or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
