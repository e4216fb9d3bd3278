"""A first delivery to a server on this machine, beside a bare loop that posts the same bytes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import httpx

from audience_sync.app import App
from audience_sync.bootstrap import build
from audience_sync.config.load import load
from bench.cycles import START
from bench.measured import report
from bench.workload import ENVIRONMENT, configuration, today

WORKERS = 8
"""As many as the program uses by default."""


@contextmanager
def receiving() -> Iterator[str]:
    """Address of a new server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.receiver"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.communicate()


def deliver(app: App, calls: int) -> float:
    """Seconds."""
    start = perf_counter()
    outcomes = list(app.deliveries(lambda _span: None).deliver(threading.Event()))
    seconds = perf_counter() - start
    if sum(outcome.accepted for outcome in outcomes) != calls:
        raise SystemExit(f"not everything was delivered: {outcomes}")
    return seconds


def received(address: str) -> list[bytes]:
    whole = httpx.get(address, timeout=60).content
    bodies, at = [], 0
    while at < len(whole):
        size = int.from_bytes(whole[at : at + 4], "big")
        bodies.append(whole[at + 4 : at + 4 + size])
        at += 4 + size
    return bodies


def post(address: str, bodies: Sequence[bytes]) -> float:
    """Seconds that ``WORKERS`` threads need, each with a client of its own."""

    def work(share: Sequence[bytes]) -> None:
        with httpx.Client() as client:
            for body in share:
                client.post(f"{address}/v1/batch", content=body).raise_for_status()

    start = perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, [bodies[n::WORKERS] for n in range(WORKERS)]))
    return perf_counter() - start


def main(folder: Path, calls: int) -> None:
    today(folder, 0)
    with receiving() as address:
        config = configuration(folder, f"{address}/v1")
        app = build(load([config], ENVIRONMENT), writes=True)
        (configured,) = app.audiences.values()
        app.captures().capture(configured, START)
        seconds = deliver(app, calls)
        app.close()
        bodies = received(address)
        bare = post(address, bodies)
    requests, size = len(bodies), sum(map(len, bodies))
    report({"seconds": seconds, "bare": bare, "requests": requests, "bytes": size})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
