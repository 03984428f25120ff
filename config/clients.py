"""Which thing an MQTT client is: the first pattern that its id matches whole says so, else it is the id itself."""

import re
from collections.abc import Iterable

from config.model import Client


def thing_of(client_id: str, clients: Iterable[Client]) -> str:
    """The name of the thing (spec.md §12 #31). `clients` is `Rules.clients`, checked by config/brokers.py."""
    for client in clients:
        match = re.fullmatch(client.pattern, client_id)  # re keeps what it compiled
        if match:
            return match.expand(client.thing)
    return client_id
