"""`detectd serve`: run until SIGTERM or SIGINT; a second one ends at once; SIGHUP reloads."""

import argparse
import sys

import structlog

from actors.metrics import kinds
from config.load import ConfigError, load
from daemon import kernel_cache, logs
from daemon.commands import bad

log = structlog.get_logger(__name__)


def serve(options: argparse.Namespace) -> int:
    """0 after a signal, 1 the configuration is bad, 2 it can't be read, 3 it could not start or something broke."""
    try:
        loaded = load(options.config, kinds())
    except ConfigError as problem:
        print(problem, file=sys.stderr)
        return bad(problem)
    logs.configure(loaded.settings.logging)
    for warning in loaded.warnings:
        log.warning("config.warning", problem=str(warning))
    kernel_cache.prepare(loaded.settings.data_dir)
    from daemon.runner import run  # noqa: PLC0415  # after the place of the kernels is known

    return run(options.config, loaded)
