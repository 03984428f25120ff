"""Every setting, its default and its unit: frozen values, no behaviour.

AWS objects (profiles, metrics, dimensions) keep AWS's camelCase on the wire and snake_case in Python; daemon
settings are snake_case in both. Defaults live here and nowhere else. Holding a `Settings` that came out of
`config.load` means that it has been checked.
"""

from pathlib import Path
from typing import Any, Literal

import msgspec

MS = 1_000_000  # nanoseconds in a millisecond
NS = 1_000_000_000  # nanoseconds in a second: every instant inside detectd is an integer number of nanoseconds

Operator = Literal[
    "less-than",
    "less-than-equals",
    "greater-than",
    "greater-than-equals",
    "in-cidr-set",
    "not-in-cidr-set",
    "in-port-set",
    "not-in-port-set",
    "in-set",
    "not-in-set",
]
CustomMetricType = Literal["string-list", "ip-address-list", "number-list", "number"]


class Aws(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """An object of AWS's service model: camelCase on the wire, absent members omitted."""


class MetricValue(Aws, frozen=True):
    """One of the six members is present (spec.md §5.2)."""

    count: int | None = None
    cidrs: tuple[str, ...] | None = None
    ports: tuple[int, ...] | None = None
    number: float | None = None
    numbers: tuple[float, ...] | None = None
    strings: tuple[str, ...] | None = None


class StatisticalThreshold(Aws, frozen=True):
    statistic: str


class MlDetectionConfig(Aws, frozen=True):
    confidence_level: Literal["LOW", "MEDIUM", "HIGH"]


class Criteria(Aws, frozen=True):
    """What is normal: exactly one of value, statistical_threshold, ml_detection_config (spec.md §5.2)."""

    comparison_operator: Operator | None = None
    value: MetricValue | None = None
    duration_seconds: int | None = None
    consecutive_datapoints_to_alarm: int | None = None
    consecutive_datapoints_to_clear: int | None = None
    statistical_threshold: StatisticalThreshold | None = None
    ml_detection_config: MlDetectionConfig | None = None


class MetricDimension(Aws, frozen=True):
    dimension_name: str
    operator: Literal["IN", "NOT_IN"] | None = None


class Behavior(Aws, frozen=True):
    name: str
    metric: str | None = None
    metric_dimension: MetricDimension | None = None
    criteria: Criteria | None = None
    suppress_alerts: bool | None = None
    export_metric: bool | None = None


class AlertTarget(Aws, frozen=True):
    alert_target_arn: str
    role_arn: str


class MetricToRetain(Aws, frozen=True):
    metric: str
    metric_dimension: MetricDimension | None = None
    export_metric: bool | None = None


class MetricsExportConfig(Aws, frozen=True):
    mqtt_topic: str
    role_arn: str


class Tag(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True, forbid_unknown_fields=True):
    key: str
    value: str = ""


class SecurityProfile(Aws, frozen=True):
    """What `aws iot describe-security-profile` prints, plus `targets` (design.md §5)."""

    security_profile_name: str
    security_profile_description: str | None = None
    behaviors: tuple[Behavior, ...] = ()
    alert_targets: dict[str, AlertTarget] = {}
    additional_metrics_to_retain: tuple[str, ...] = ()
    additional_metrics_to_retain_v2: tuple[MetricToRetain, ...] = msgspec.field(
        default=(), name="additionalMetricsToRetainV2"
    )
    metrics_export_config: MetricsExportConfig | None = None
    tags: tuple[Tag, ...] = ()
    targets: tuple[str, ...] = ()
    # Printed by describe-security-profile; accepted and ignored, so that its output is a valid file.
    security_profile_arn: str | None = None
    version: int | None = None
    creation_date: Any = None
    last_modified_date: Any = None


class CustomMetric(Aws, frozen=True):
    metric_name: str
    metric_type: CustomMetricType
    display_name: str | None = None
    tags: tuple[Tag, ...] = ()
    metric_arn: str | None = None
    creation_date: Any = None
    last_modified_date: Any = None


class Dimension(Aws, frozen=True):
    name: str
    type: Literal["TOPIC_FILTER"] = "TOPIC_FILTER"
    string_values: tuple[str, ...] = ()
    tags: tuple[Tag, ...] = ()
    arn: str | None = None
    creation_date: Any = None
    last_modified_date: Any = None


class Daemon(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A daemon setting: snake_case everywhere."""


class Group(Daemon, frozen=True):
    """A thing group; `parent` names another group (spec.md §10.7)."""

    parent: str | None = None
    things: tuple[str, ...] = ()


class Fleet(Daemon, frozen=True):
    """The registry: what is named here is registered, in a group or not."""

    things: tuple[str, ...] = ()
    groups: dict[str, Group] = {}


class Limits(Daemon, frozen=True):
    report_interval_s: float | None = None
    """The floor between two accepted reports of a thing; None: 300 in `serve`, no floor in `replay`; 0: no floor."""
    durations: Literal["aws", "any"] = "aws"
    """aws: 300, 600, 900, 1800, 3600; any: every whole second ≥ 1."""
    grace_s: float = 30.0
    """How long a cloud-side window stays open for late events."""
    silence_s: float = 172_800.0
    """Silence after which an alarm is invalidated (48 h, spec.md §3.5)."""
    population_min: int = 2
    """The fewest things whose values make a percentile (spec.md §3.2)."""
    lenient: bool = False
    """Accept a bare custom metric object where AWS wants a one-element list."""
    skip_first_counters: bool = False
    """Do not count the network counters of a thing's first report after a gap (spec.md §2.2)."""
    payload_bytes_max: int = 131_072
    things_max: int = 2_000_000
    """Things remembered at a time; reports of further ones are rejected and counted."""
    topic_filters: Literal["aws", "mqtt"] = "aws"
    """Whether `a/#` matches `a` too: the MQTT standard says so, AWS does not (spec.md §6.2)."""
    cloud_window_s: int = 300
    """The window of what the broker sees, where a behavior states none (spec.md §1.3)."""


class Client(Daemon, frozen=True):
    """Which thing an MQTT client is: its id must match `pattern` whole; `thing` may use its groups."""

    pattern: str
    thing: str


class Rules(Daemon, frozen=True):
    """All that decides alarms. A change of it is a log entry; its digest names it (design.md §4)."""

    profiles: tuple[SecurityProfile, ...] = ()
    custom_metrics: tuple[CustomMetric, ...] = ()
    dimensions: tuple[Dimension, ...] = ()
    fleet: Fleet = Fleet()
    limits: Limits = Limits()
    clients: tuple[Client, ...] = ()
    """The first that matches decides; an id that none matches is the thing's name (spec.md §12 #31)."""


class Account(Daemon, frozen=True):
    id: str = "000000000000"
    region: str = "local"


class AccessKey(Daemon, frozen=True):
    id: str
    secret_file: Path
    role: Literal["read", "operate", "admin"] = "read"


class Tls(Daemon, frozen=True):
    cert: Path
    key: Path
    ca: Path | None = None
    """Where given, clients must show a certificate that it signed."""


class Http(Daemon, frozen=True):
    listen: str = "127.0.0.1:8080"
    access_keys: tuple[AccessKey, ...] = ()
    tls: Tls | None = None
    behind_proxy: bool = False


class Embedded(Daemon, frozen=True):
    """The nats-server that the daemon starts, watches and stops. Port 0 chooses a free one."""

    mqtt: str = "127.0.0.1:1883"
    tls: Tls | None = None
    sensor: bool = True
    """See what each client does (daemon/sensor/); without it the embedded broker tells nothing of that."""
    nats: str = "127.0.0.1:0"
    sync_interval_s: float | None = None
    """fsync the log this often; 0: at every write; None: nats-server's own 2 minutes."""


class Nats(Daemon, frozen=True):
    """An existing nats-server or cluster that carries the log."""

    url: str
    credentials_file: Path | None = None
    system_credentials_file: Path | None = None
    """Of a user of the system account, which hears who connects, leaves and is refused."""


class Tap(Daemon, frozen=True):
    """Topics to listen to; the level `{clientId}` says whose message it is."""

    topics: tuple[str, ...]


class Bridge(Daemon, frozen=True):
    name: str
    url: str
    username: str | None = None
    password_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    prefix: str = "$aws"
    replies: Literal["auto", "on", "off"] = "auto"
    client_id: str | None = None
    alpn: tuple[str, ...] = ()
    reports: bool = True
    """Read the reports under the prefix."""
    events: tuple[Literal["presence", "emqx"], ...] = ()
    """What the broker tells of its clients: AWS's presence events, EMQX's system topics."""
    tap: Tap | None = None
    silent_s: float | None = None
    """Not a message for this long: say so, and count it."""
    required: bool = False
    """Not ready while the bridge is down, or silent."""


class Sensor(Daemon, frozen=True):
    """A pass-through in front of a broker that is not ours: its clients connect to `listen`."""

    name: str
    listen: str
    upstream: str
    tls: Tls | None = None
    upstream_ca: Path | None = None


class MosquittoLog(Daemon, frozen=True):
    """The log file of a Mosquitto."""

    name: str
    path: Path


class Devices(Daemon, frozen=True):
    """Who may report for which thing on the brokers that a sensor stands in front of."""

    identity: Literal["auto", "on", "off"] = "auto"
    """on: a client speaks for its own thing only; auto: where it must log in, or off loopback."""
    gateways: dict[str, tuple[str, ...]] = {}
    """Clients that speak for others: the things, * at an end standing for the rest of a name."""


class Broker(Daemon, frozen=True):
    embedded: Embedded | None = None
    nats: Nats | None = None
    bridges: tuple[Bridge, ...] = ()
    sensors: tuple[Sensor, ...] = ()
    mosquitto_logs: tuple[MosquittoLog, ...] = ()
    devices: Devices = Devices()


class Log(Daemon, frozen=True):
    """The bounds of the log: JetStream drops the oldest beyond either."""

    max_age_s: float = 14 * 86_400.0
    max_bytes: int = 4 * 1024**3
    guard_bytes: int = 128 * 1024**2
    stream: str = "LOG"


class Webhook(Daemon, frozen=True):
    name: str
    url: str
    secret_file: Path | None = None
    timeout_s: float = 15.0


class Topic(Daemon, frozen=True):
    """An SNS topic."""

    name: str
    arn: str
    timeout_s: float = 15.0


class Receivers(Daemon, frozen=True):
    """Who hears of every event. The topics of profiles' `alertTargets` hear of their own."""

    webhooks: tuple[Webhook, ...] = ()
    topics: tuple[Topic, ...] = ()


class AwsOut(Daemon, frozen=True):
    endpoint_urls: dict[str, str] = {}


class Logging(Daemon, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Checkpoint(Daemon, frozen=True):
    every_s: float = 30.0


class Settings(Daemon, frozen=True):
    """One configuration, checked. Paths are absolute; `sources` says which files it was read from."""

    data_dir: Path = Path("data")
    account: Account = Account()
    http: Http = Http()
    broker: Broker = Broker()
    log: Log = Log()
    receivers: Receivers = Receivers()
    aws: AwsOut = AwsOut()
    logging: Logging = Logging()
    checkpoint: Checkpoint = Checkpoint()
    rules: Rules = Rules()
    sources: tuple[Path, ...] = ()
    origin: dict[str, str] = {}
    """Which file defines an object: "profile/NAME", "custom-metric/NAME", "dimension/NAME", "group/NAME" -> path, and
    "things" -> the files that name things outside of groups."""
