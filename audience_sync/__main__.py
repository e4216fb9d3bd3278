"""``audience-sync``, and ``python -m audience_sync``: where everything begins."""

from __future__ import annotations

import signal

WAITING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> None:
    """Signals wait while the program is loaded, and until it is known who takes them.

    They would kill the daemon, which shall end with 0, or live on (P15). ``cli.signals.released``
    is for whoever does not listen.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITING)
    from audience_sync.cli.main import main as work

    work()


if __name__ == "__main__":
    main()
