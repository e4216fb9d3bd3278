"""A read that may hang: one at a time, and nobody waits for long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from audience_sync.errors import StoreFailed
from audience_sync.web.latest import Latest

PATIENCE = 0.05


class Source:
    """Counts its readers, and holds them up until it is let go."""

    def __init__(self) -> None:
        self.reads = 0
        self.at_once = 0
        self.most = 0
        self.open = threading.Event()
        self.open.set()
        self.failure: Exception | None = None

    def __call__(self) -> int:
        self.reads += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        number = self.reads
        self.open.wait(20)
        self.at_once -= 1
        if self.failure is not None:
            raise self.failure
        return number


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def latest(source: Callable[[], int], clock: Clock, patience: float = 20.0) -> Latest[int]:
    return Latest("read", source, fresh=10, patience=patience, elapsed=clock)


def test_read_once_for_all_who_ask_at_once(source: Source, clock: Clock) -> None:
    async def ask() -> list[int]:
        read = latest(source, clock)
        source.open.clear()
        asked = [asyncio.create_task(read.get()) for _ in range(200)]
        await asyncio.sleep(0)
        source.open.set()
        return await asyncio.gather(*asked)

    assert asyncio.run(ask()) == [1] * 200
    assert source.reads == 1


def test_told_again_until_it_is_old(source: Source, clock: Clock) -> None:
    async def ask() -> list[int]:
        read = latest(source, clock)
        found = [await read.get(), await read.get()]
        clock.now += 9.9
        found.append(await read.get())
        clock.now += 0.1
        return [*found, await read.get(), await read.get()]

    assert asyncio.run(ask()) == [1, 1, 1, 2, 2]


def test_a_read_that_hangs_is_not_joined_by_another(source: Source, clock: Clock) -> None:
    async def ask() -> int:
        read = latest(source, clock, PATIENCE)
        source.open.clear()
        for _ in range(3):
            answers = await asyncio.gather(*(read.get() for _ in range(50)), return_exceptions=True)
            assert {type(answer) for answer in answers} == {TimeoutError}
            clock.now += 1000
        assert source.reads == 1
        source.open.set()
        return await patiently(read)

    assert asyncio.run(ask()) == 1
    assert source.most == 1


async def patiently(read: Latest[int]) -> int:
    for _ in range(200):
        try:
            return await read.get()
        except TimeoutError:
            continue
    raise AssertionError("it never came")


def test_what_went_wrong_is_told_until_it_is_old(source: Source, clock: Clock) -> None:
    async def ask() -> int:
        read = latest(source, clock)
        source.failure = StoreFailed("gone")
        for _ in range(5):
            with pytest.raises(StoreFailed, match="gone"):
                await read.get()
        assert source.reads == 1
        source.failure = None
        clock.now += 10
        return await read.get()

    assert asyncio.run(ask()) == 2


def test_a_failure_that_nobody_waited_for_is_no_noise(source: Source, clock: Clock) -> None:
    unhandled: list[object] = []

    async def ask() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: unhandled.append(what))
        read = latest(source, clock, PATIENCE)
        source.open.clear()
        source.failure = StoreFailed("gone")
        with pytest.raises(TimeoutError):
            await read.get()
        source.open.set()
        while source.at_once:
            await asyncio.sleep(0.01)

    asyncio.run(ask())
    assert unhandled == []


def test_a_read_that_ends_after_its_loop(source: Source, clock: Clock) -> None:
    async def ask() -> None:
        source.open.clear()
        with pytest.raises(TimeoutError):
            await latest(source, clock, PATIENCE).get()

    asyncio.run(ask())
    source.open.set()
    for thread in threading.enumerate():
        if thread.name == "read":
            thread.join(20)  # what it raises fails the test: pytest turns it into a warning
    assert source.at_once == 0
