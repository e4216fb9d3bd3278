"""Alembic's entry: runs on the connection it is given, in that connection's transaction.

No ``fileConfig``: it would silence the loggers of the daemon.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
