"""The rate of a lane, shared by threads, when the process stands still."""

from __future__ import annotations

import threading

from audience_sync.pipeline.send import SharedPace
from tests.acceptance.program import wait_until

WORKERS, BATCH, RATE = 6, 10, 10.0


class Clock:
    """Stands still, and whoever sleeps with it, until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleepers = 0
        self._moved = threading.Condition()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        with self._moved:
            self.sleepers += 1
            self._moved.wait_for(lambda: self.now >= until)
            self.sleepers -= 1

    def move(self, seconds: float) -> None:
        with self._moved:
            self.now += seconds
            self._moved.notify_all()


def test_a_process_that_stood_still_sends_no_more_than_what_is_saved_up() -> None:
    """SIGSTOP and SIGCONT, or a frozen machine: all whose turn came meanwhile wake at once."""
    clock, gone = Clock(), list[float]()
    pace = SharedPace(RATE, clock)

    def work() -> None:
        pace.wait(BATCH, clock.sleep)
        gone.append(clock.now)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()

    def settled(count: int) -> bool:
        return len(gone) == count and clock.sleepers == WORKERS - count

    wait_until(lambda: settled(2))  # a second's worth is saved up, and the first goes too
    clock.move(100)
    wait_until(lambda: settled(4))
    clock.move(1)
    wait_until(lambda: settled(5))
    clock.move(1)
    wait_until(lambda: settled(6))
    assert gone == [0.0, 0.0, 100.0, 100.0, 101.0, 102.0]
