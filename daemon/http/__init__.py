"""What listens for HTTP: the guards, the listener, and one file per kind of endpoint."""
