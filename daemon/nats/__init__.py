"""nats-server, where it is ours: found or fetched, configured, started, guarded, watched, ended."""
