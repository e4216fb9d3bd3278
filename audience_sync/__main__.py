"""``python -m audience_sync`` is the same as ``audience-sync``."""

from __future__ import annotations

from audience_sync.cli.main import main

if __name__ == "__main__":
    main()
