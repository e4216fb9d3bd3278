"""The program, with every connection made from a loopback address of its own.

    python tests/fakes/from_address.py 127.0.1.7 run

So a server on this machine can tell which of several processes sent a request.
"""

from __future__ import annotations

import runpy
import socket
import sys
from typing import Any

connect = socket.create_connection


def main() -> None:
    address = sys.argv.pop(1)

    def connect_from(
        to: tuple[str, int], timeout: Any = None, source_address: Any = None, **options: Any
    ) -> socket.socket:
        return connect(to, timeout, source_address or (address, 0), **options)

    socket.create_connection = connect_from
    runpy.run_module("audience_sync", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
