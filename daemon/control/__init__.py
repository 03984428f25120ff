"""The control plane: profiles, metrics, dimensions, the registry and the audit trail, kept in SQLite.

No HTTP in here: `daemon/http/aws/` speaks it. What files define is copied into the same tables, marked with its file,
so that every question has one place to be asked; what is in the tables becomes the `Rules` that go into the log.
"""
