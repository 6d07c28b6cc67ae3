"""What a process remembers of PostgreSQL, and may believe for less than a second without asking.

A `Table` is filled lazily and emptied by `NOTIFY`: triggers on all that a table is made from send the notification with
the commit that changes a row, whoever changes it. One thread a process listens. What is
remembered counts only under a lease, which the listener's round trips renew: when its connection is half-open, or
PostgreSQL away, the lease ends and the process asks PostgreSQL, as it does inside a transaction, which may see more
than others do.

This needs sessions of PostgreSQL's own: behind a pooler in transaction mode, LISTEN hears nothing.
"""

from tenants.tables.listener import LEASE_S, Listener, listener
from tenants.tables.table import Table

__all__ = ["LEASE_S", "Listener", "Table", "listener"]
