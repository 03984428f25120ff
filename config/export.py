"""Where a profile's exported metrics go: which broker, and whether its topic may be published to (spec.md §9.4)."""

from collections.abc import Iterator
from typing import Final

from config.model import SecurityProfile, Settings
from config.problem import Finding

EXPORT_BRIDGE: Final = "detectd:export-bridge"
"""A tag of a security profile: the bridge whose broker its metrics are exported to."""

OURS: Final = frozenset({"detectd", "_INBOX", "_R_"})
"""First levels of topics that are the server's or our own subjects."""


def bridge_of(profile: SecurityProfile) -> str:
    """The bridge that its tag names; "" = none: the broker that the log is on."""
    return next((tag.value for tag in profile.tags if tag.key == EXPORT_BRIDGE), "")


def is_publishable(topic: str) -> bool:
    """Whether we may publish there, on the log's own broker, as the user who may do everything.

    A profile may come from anyone who may change profiles: it must not steer the server, or write into the log.
    """
    first, _, rest = topic.partition("/")
    if not topic.isprintable() or " " in topic or any(level in {"*", ">"} for level in topic.split("/")):
        return False
    return rest.startswith("rules/") if first == "$aws" else not first.startswith("$") and first not in OURS


def check_exports(settings: Settings) -> Iterator[Finding]:
    """What of the profiles' exports will come to nothing: warnings."""
    bridges = {bridge.name for bridge in settings.broker.bridges}
    for at, profile in enumerate(settings.rules.profiles):
        config, bridge = profile.metrics_export_config, bridge_of(profile)
        if config is not None and not bridge and not is_publishable(config.mqtt_topic):
            message = "nothing is exported to a topic of the server's or of detectd's own, or with spaces"
            yield Finding(("profiles", at, "metricsExportConfig", "mqttTopic"), message, is_warning=True)
        if bridge and bridge not in bridges:
            place = [tag.key for tag in profile.tags].index(EXPORT_BRIDGE)
            message = f"nothing is exported: there is no bridge {bridge!r}"
            yield Finding(("profiles", at, "tags", place, "Value"), message, is_warning=True)
