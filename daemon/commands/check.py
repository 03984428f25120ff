"""`detectd check`: problems with their places, else what every behavior means in plain words."""

import argparse
import sys
from typing import Any

import msgspec

from actors.metrics import kinds
from config.behaviors import metrics_of
from config.explain import explain
from config.load import ConfigError, Loaded
from daemon.commands import bad, load_whole


def check(options: argparse.Namespace) -> int:
    """0 good, 1 it has errors."""
    try:
        loaded = load_whole(options.config)
    except ConfigError as problem:
        if not options.json:
            raise
        _print_json({"valid": False, "problems": [str(p) for p in problem.problems]})
        return bad(problem)
    if options.json:
        told = [{"profile": profile, "behavior": name, "means": text} for profile, name, text in meanings(loaded)]
        _print_json({"valid": True, "warnings": [str(w) for w in loaded.warnings], "behaviors": told})
        return 0
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for profile, name, text in meanings(loaded):
        print(f"{profile}/{name}: {text}")
    print(f"{options.config}: good", file=sys.stderr)
    return 0


def meanings(loaded: Loaded) -> list[tuple[str, str, str]]:
    """(profile, behavior, what it means) of every behavior."""
    rules = loaded.settings.rules
    metrics = metrics_of(kinds(), rules.custom_metrics)
    return [
        (profile.security_profile_name, behavior.name, explain(behavior, metrics[behavior.metric or ""]))
        for profile in rules.profiles
        for behavior in profile.behaviors
    ]


def _print_json(what: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(what)).decode())
