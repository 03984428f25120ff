"""`detectd sources`: which cloud-side metrics each broker of a configuration can have, and what to switch on."""

import argparse
import sys

import msgspec

from actors.metrics import kinds
from config.load import load
from daemon.brokers._sight import Place, Sight, sights, unseen


def sources(options: argparse.Namespace) -> int:
    """0, also where a metric is seen nowhere: the configuration is good all the same."""
    settings = load(options.config, kinds()).settings
    places = list(sights(settings, kinds().metrics.values()))
    dark = unseen(settings, places)
    if options.json:
        content = {"sources": places, "unseen": dark}
        print(msgspec.json.format(msgspec.json.encode(content)).decode())
        return 0
    print("\n\n".join(_told(place) for place in places))
    for behavior in dark:
        print(f"warning: {behavior} is told of by no source", file=sys.stderr)
    return 0


def _told(place: Place) -> str:
    head = f"{place.name}: {place.kind}"
    if all(sight == Sight("yes") for sight in place.metrics.values()):
        return f"{head}\n  all cloud-side metrics"
    width = max(map(len, place.metrics))
    lines = [f"  {metric:{width}}  {_words(sight)}" for metric, sight in place.metrics.items()]
    ways = dict.fromkeys(sight.instead for sight in place.metrics.values() if sight.instead)
    return "\n".join([head, *lines, *(f"  for the rest: {way}" for way in ways)])


def _words(sight: Sight) -> str:
    needs = f", with {sight.needs}" if sight.needs else ""
    but = f": {sight.but}" if sight.but else ""
    return f"{sight.seen}{needs}{but}"
