"""Who gives an order, as the history keeps it."""

from __future__ import annotations

import getpass
import os
import socket


def actor() -> str:
    """``user@host``; the number of a user that has no name, as in many containers."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}".encode(errors="backslashreplace").decode()
