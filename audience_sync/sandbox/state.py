"""Everything that a sandbox knows; it lives as long as the process, and on no disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime

from audience_sync.sandbox.allowance import Days, Quotas
from audience_sync.sandbox.crisp import Crisp
from audience_sync.sandbox.crisp_door import CrispDoor, Stale
from audience_sync.sandbox.events import Events
from audience_sync.sandbox.faults import Dice
from audience_sync.sandbox.journal import Journal
from audience_sync.sandbox.options import Options
from audience_sync.sandbox.people import People
from audience_sync.sandbox.segment import Segment
from audience_sync.sandbox.users import Users


class State:
    """For one thread. ``elapsed``: seconds of any clock that does not go back."""

    def __init__(
        self, options: Options, clock: Callable[[], datetime], elapsed: Callable[[], float]
    ) -> None:
        ids = random.Random(options.seed)
        self.options = options
        self.clock = clock
        self.days = Days(clock)
        self.journal = Journal(clock, self.days.today)
        self.dice = Dice(options.failures, options.seed)
        self.quotas = Quotas(self.days, options.quota_of)
        self.stale = Stale(options.stale, elapsed)
        self.events = Events()
        self.websites = {name: People(clock, ids, self.events) for name in options.websites}
        self.users = Users(clock, self.events)
        self.crisp = Crisp(self.websites, batch_people=options.batch_people)
        self.crisp_door = CrispDoor(options, self.quotas, elapsed)
        self.segment = Segment(options, self.users, elapsed)
