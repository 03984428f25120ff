"""The edges: event loop, sockets, files, clocks, threads. What decides lives in `actors`."""
