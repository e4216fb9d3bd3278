"""A server on this machine that takes batches as Segment does, and gives them back on demand."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = b'{"success": true}'


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    """Status, headers and body leave in one piece."""
    bodies: list[bytes] = []  # noqa: RUF012 (shared by the handlers of one process)

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(ANSWER)

    def do_GET(self) -> None:
        """Everything received, each body after its length in 4 bytes; then it is forgotten."""
        parts = [len(body).to_bytes(4, "big") + body for body in self.bodies]
        self.bodies.clear()
        self._answer(b"".join(parts))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    """Print the port, then serve until stdin is closed by whoever started this."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
