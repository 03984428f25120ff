"""`detectd serve`: run until SIGTERM or SIGINT; a second one ends at once; SIGHUP reloads."""

import argparse

import structlog

from daemon import logs
from daemon.commands import load_whole
from daemon.runner import run

log = structlog.get_logger(__name__)


def serve(options: argparse.Namespace) -> int:
    """0 after a signal, 1 the configuration is bad, 2 it can't be read, 3 it could not start or something broke."""
    loaded = load_whole(options.config)
    logs.configure(loaded.settings.logging)
    for warning in loaded.warnings:
        log.warning("config.warning", problem=str(warning))
    return run(options.config, loaded)
