"""The demo's configuration: written into a folder of its own, complete, as one would write it by hand."""

import base64
import json
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

GROUPS: Final = {
    "pumps": tuple(f"pump-{i:02d}" for i in range(1, 13)),
    "meters": tuple(f"meter-{i:02d}" for i in range(1, 13)),
}
THINGS: Final = tuple(thing for things in GROUPS.values() for thing in things)
REPORT_EVERY_S: Final = 2.0

_SETTINGS = """\
# What scripts/demo runs with. A real fleet reports every 300 s; this one is impatient.
data_dir: data
http: {{listen: {http}}}
broker: {{embedded: {{mqtt: {mqtt}}}}}
profiles: [profiles/*.yaml]
custom_metrics: [{{metricName: cpu_usage, metricType: number}}]
fleet:
  groups:
    pumps: {{things: {pumps}}}
    meters: {{things: {meters}}}
receivers:
  webhooks: [{{name: demo, url: "{webhook}", secret_file: webhook.secret}}]
limits: {{report_interval_s: 1, durations: any}}
"""

# A behavior says what is normal; whatever else happens is an alarm.
_PROFILES = {
    "everything.yaml": """\
securityProfileName: everything
securityProfileDescription: what holds for every device of the demo
targets: [all/registered-things]
behaviors:
  - name: allowed-ports
    metric: aws:listening-tcp-ports
    criteria: {comparisonOperator: in-port-set, value: {ports: [22, 80, 443, 8883, 9100]}}
  - name: known-peers
    metric: aws:destination-ip-addresses
    criteria:
      comparisonOperator: in-cidr-set
      value: {cidrs: [10.20.0.0/16, 192.0.2.0/24, "2001:db8:20::/48"]}
  - name: bytes-out
    metric: aws:all-bytes-out
    criteria: {comparisonOperator: less-than-equals, value: {count: 100000}, durationSeconds: 4}
  - name: cpu
    metric: cpu_usage
    criteria: {comparisonOperator: less-than-equals, value: {number: 90}, consecutiveDatapointsToAlarm: 2}
""",
    "pumps.yaml": """\
securityProfileName: pumps
securityProfileDescription: pumps are alike, so none should stand out
targets: [thinggroup/pumps]
behaviors:
  - name: connections-like-the-others
    metric: aws:num-established-tcp-connections
    criteria: {comparisonOperator: less-than-equals, statisticalThreshold: {statistic: p90}, durationSeconds: 3}
""",
}


@dataclass(frozen=True, slots=True)
class Written:
    """Where the configuration is, and the addresses that it chose."""

    path: Path
    http: str
    mqtt_port: int
    secret: str = field(repr=False)


def write(folder: Path, webhook_url: str) -> Written:
    """Writes everything that `detectd serve` reads. The usual ports where they are free, others where not."""
    http, mqtt_port = f"127.0.0.1:{_port(8080)}", _port(1883)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    secret_file = folder / "webhook.secret"
    secret_file.touch(mode=0o600)
    secret_file.write_text(secret + "\n")
    (folder / "profiles").mkdir()
    for name, text in _PROFILES.items():
        (folder / "profiles" / name).write_text(text)
    members = {group: json.dumps(things) for group, things in GROUPS.items()}
    path = folder / "detectd.yaml"
    path.write_text(_SETTINGS.format(http=http, mqtt=f"127.0.0.1:{mqtt_port}", webhook=webhook_url, **members))
    return Written(path, http, mqtt_port, secret)


def _port(usual: int) -> int:
    """`usual`, or one that the system says is free now."""
    for port in (usual, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            free: int = probe.getsockname()[1]
            return free
    raise OSError("no free port on 127.0.0.1")
