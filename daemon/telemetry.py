"""Every number the daemon shows about itself, declared once, in Prometheus' terms: prefix, base units, help.

No label names a thing (a fleet has millions); labels are actors, receivers, bridges, profiles, behaviors and fixed
reasons, all bounded by the configuration. The hot path counts once per batch, never per report. Numbers that another
part keeps anyway (a queue's length, a bridge's totals) are read from there at the moment of the scrape.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from actors.event_columns import DROPS
from actors.router import Router

LATENCY_S: Final = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.01,
    0.015,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    60.0,
)
WORK_S: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

Read = Callable[[], float]


class BridgeCounts(Protocol):
    """What a bridge keeps of itself (daemon/brokers/_base.py); it also has every name of BRIDGE_TOTALS."""

    connected: bool
    silent: bool
    last_message_ns: int


class SourceTotals(Protocol):
    """What a source keeps of itself (daemon/sources.py); it also has some names of SOURCE_TOTALS."""

    connected: bool
    last_heard_ns: int


class Total:
    """A counter that someone else keeps: read when scraped, for one value of the label or without labels."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, label: str = "") -> None:
        self._name, self._text, self._label = name, text, label
        self._reads: dict[str, Read] = {}
        registry.register(self)

    def read_from(self, read: Read, label: str = "") -> None:
        """`read` gives the total so far; it must never fall while the process lives, except by `forget`."""
        self._reads[label] = read

    def forget(self, label: str) -> None:
        self._reads.pop(label, None)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for label, read in self._reads.items():
            family.add_metric([label] if self._label else [], read())
        yield family


class Spread:
    """A histogram that takes a whole batch of seconds in one call: its cost per report is a few nanoseconds."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, bounds_s: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._bounds_s = np.array(bounds_s)
        self._counts = np.zeros(len(bounds_s) + 1, dtype=np.int64)  # [bound], the last one is +Inf
        self._sum_s = 0.0
        registry.register(self)

    def observe(self, seconds: npt.NDArray[np.float64]) -> None:
        """seconds: [n]. A clock that stepped back makes negative ones: they count as 0."""
        at_least_0 = np.maximum(seconds, 0.0)
        places = np.searchsorted(self._bounds_s, at_least_0, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum_s += float(at_least_0.sum())

    def collect(self) -> Iterator[Metric]:
        below = np.cumsum(self._counts)
        names = [*(str(float(bound)) for bound in self._bounds_s), "+Inf"]
        family = HistogramMetricFamily(self._name, self._text)
        family.add_metric([], [(name, float(count)) for name, count in zip(names, below, strict=True)], self._sum_s)
        yield family


class Telemetry:
    """All metrics of one daemon, in a registry of its own. Attributes are grouped by what they are about."""

    def __init__(self) -> None:
        # A second series per counter that nobody queries.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client leaves it without a signature
        self.registry = CollectorRegistry()
        self._about_reports()
        self._about_events()
        self._about_alarms()
        self._about_the_log()
        self._about_actors()
        self._about_storage()
        self._about_delivery()
        self._about_configuration()
        self._about_brokers()
        self._about_the_process()

    def render(self) -> bytes:
        """The text exposition format, version 0.0.4; every value is as of now."""
        return generate_latest(self.registry)

    # What the supervisor tells (daemon/supervisor.py).

    def handled(self, actor: str, seconds: float, reports: int) -> None:
        self.handle_seconds.observe(seconds)
        self.actor_reports.labels(actor).inc(reports)

    def restarted(self, actor: str) -> None:
        self.actor_restarts.labels(actor).inc()

    def poisoned(self, actor: str) -> None:
        self.poison.labels(actor).inc()

    # What the HTTP guards tell (daemon/http/guards.py).

    def answered(self, status: int) -> None:
        self._http_request(str(status)).inc()

    def refused(self, reason: str) -> None:
        self.http_refused.labels(reason).inc()

    def watch_history(self, counters: object) -> None:
        """Read what the history of metric values counts (`daemon.history.recorder.Counters`)."""
        for name, total in self.history_totals.items():
            total.read_from(partial(getattr, counters, name))

    def watch_export(self, counters: object, batches: object) -> None:
        """Read what the export of metrics counts (`daemon.export.Counters`, `daemon.export_entries.Batches`)."""
        for name, total in self.export_totals.items():
            total.read_from(partial(getattr, counters if hasattr(counters, name) else batches, name))
        self.export_held.set_function(partial(getattr, batches, "bytes"))

    def watch_sensor(self, sensor: str, counts: object) -> None:
        """Read what a sensor counts (`daemon.sensor.counts.Counts`)."""
        for name, total in self.sensor_totals.items():
            total.read_from(partial(getattr, counts, name), sensor)
        self.sensor_connections.labels(sensor).set_function(partial(getattr, counts, "connections"))

    def watch_source(self, source: str, totals: SourceTotals) -> None:
        """Read what a log file or a cluster's system account counts (`daemon.sources`): each has some of the names."""
        self.source_connected.labels(source).set_function(lambda: float(totals.connected))
        self.source_last_heard.labels(source).set_function(lambda: totals.last_heard_ns / 1e9)
        if hasattr(totals, "behind_bytes"):
            self.source_behind.labels(source).set_function(partial(getattr, totals, "behind_bytes"))
        for name, total in self.source_totals.items():
            if hasattr(totals, name):
                total.read_from(partial(getattr, totals, name), source)

    def watch_devices(self, reads: Mapping[str, Read], refused: Mapping[str, Read]) -> None:
        """Read what daemon/doormen.py keeps: every name of DEVICE_GAUGES and DEVICE_TOTALS; refusals by reason."""
        for name, gauge in self.device_gauges.items():
            gauge.set_function(reads[name])
        for name, total in self.device_totals.items():
            total.read_from(reads[name])
        for reason, read in refused.items():
            self.devices_refused.read_from(read, reason)

    def watch_access(self, denials: Mapping[Any, int], evicted: Callable[[], int]) -> None:
        """Read what access counts from where it keeps it: denials by reason, failures forgotten early."""
        for reason in denials:
            self.access_denied.read_from(partial(denials.__getitem__, reason), str(reason))
        self.access_evicted.read_from(evicted)

    # What the AWS API tells (daemon/http/aws/endpoint.py).

    def called(self, operation: str, code: str) -> None:
        self._api_request(operation, code).inc()

    def watch_bridge(self, bridge: str, counts: BridgeCounts) -> None:
        """Read a bridge's numbers from where it keeps them, until `forget_bridge`."""
        self.bridge_connected.labels(bridge).set_function(lambda: float(counts.connected))
        self.bridge_silent.labels(bridge).set_function(lambda: float(counts.silent))
        self.bridge_last_message.labels(bridge).set_function(lambda: counts.last_message_ns / 1e9)
        for name, total in self.bridge_totals.items():
            total.read_from(partial(getattr, counts, name), bridge)

    # Labels that went with the configuration: a removed receiver would be shown for ever.

    def forget_actor(self, actor: str) -> None:
        for metric in (
            self.actor_reports,
            self.actor_restarts,
            self.poison,
            self.mailbox_depth,
            self.rows,
            self.values_merged,
            self.events_late,
            self.addresses_crowded,
        ):
            metric.remove(actor)

    def forget_receiver(self, receiver: str) -> None:
        self.deliveries.remove_by_labels({"receiver": receiver})
        self.outbox_depth.remove(receiver)
        self.outbox_oldest_age.remove(receiver)

    def forget_bridge(self, bridge: str) -> None:
        self.bridge_connected.remove(bridge)
        self.bridge_silent.remove(bridge)
        self.bridge_last_message.remove(bridge)
        for total in self.bridge_totals.values():
            total.forget(bridge)

    def _about_reports(self) -> None:
        self.reports_received = self._counter("reports_received", "Reports read from the log.")
        self.reports_accepted = self._counter("reports_accepted", "Reports that passed every check.")
        self.reports_rejected = self._counter("reports_rejected", "Reports refused, by reason.", "reason")
        self.custom_values_ignored = self._counter(
            "custom_values_ignored", "Custom metric values without a definition, or not of its type, dropped."
        )
        self.control_entries = self._counter("control_entries", "Log entries that are not reports: ticks, changes ...")
        self.ticks = self._counter("ticks", "Ticks written into the idle log.")
        self.replies_sent = Total(self.registry, "detectd_replies_sent", "Replies to devices handed to a broker.")
        self.replies_dropped = Total(
            self.registry, "detectd_replies_dropped", "Replies to devices dropped because the way out was full or down."
        )

    def _about_events(self) -> None:
        """What brokers tell of their clients (actors/event_columns.py)."""
        self.broker_events = Total(
            self.registry, "detectd_broker_events", "Facts told by brokers that count: messages, connections, refusals."
        )
        self.broker_events_dropped = Total(
            self.registry,
            "detectd_broker_events_dropped",
            "Facts dropped: unreadable entries, repeated ones, of clients without a name, beyond limits.things_max.",
            "reason",
        )
        self.broker_events_ahead = Total(
            self.registry,
            "detectd_broker_events_ahead",
            "Facts stamped later than they came: they count then.",
        )
        self.topics_flushed = Total(
            self.registry, "detectd_topic_cache_flushes", "Times that the cache of topics and dimensions was full."
        )
        self.clients_known = self._gauge("clients", "Clients of brokers that are remembered.")
        self.events_late = self._gauge(
            "window_events_late", "Facts dropped from a window that was closed when they came.", "actor"
        )
        self.addresses_crowded = self._gauge(
            "window_addresses_dropped", "Addresses of a thing beyond what one window keeps.", "actor"
        )

    def watch_events(self, router: Router) -> None:
        """Read what the router counts of brokers' events."""
        heard = router.heard
        self.broker_events.read_from(lambda: float(heard.counted))
        self.broker_events_ahead.read_from(lambda: float(heard.ahead))
        for reason in DROPS:
            self.broker_events_dropped.read_from(partial(heard.dropped.__getitem__, reason), reason)
        self.topics_flushed.read_from(lambda: float(router.flushed))
        self.clients_known.set_function(lambda: float(len(router.presence.rows)))

    def _about_alarms(self) -> None:
        self.events = self._counter("events", "Violation events stored.", "type", "profile", "behavior")
        self.active_violations = self._gauge("active_violations", "Things x behaviors now in alarm.")
        self.values_merged = self._gauge(
            "window_values_merged", "Values of sliding sums merged because a thing's ring was full.", "actor"
        )
        self.rows = self._gauge("rows", "Things with state in an actor.", "actor")

    def _about_the_log(self) -> None:
        self.log_position = self._gauge("log_position", "Position of the last log entry whose effects are stored.")
        self.log_last_seq = self._gauge("log_last_sequence", "Position of the last entry that the log has.")
        self.log_lag = self._gauge("log_lag_entries", "Entries of the log not yet judged and stored.")
        self.log_connected = self._gauge("log_connected", "1 while the log can be read.")
        self.gaps = self._counter("log_gaps", "Times the log had dropped entries before they were read.")
        self.entries_echoed = Total(
            self.registry, "detectd_log_entries_echoed", "Entries of the log that were read without being sent back."
        )
        self.echo_breaks = Total(
            self.registry, "detectd_log_echo_breaks", "Times that the log itself had to be read again instead."
        )
        self.entries_resent = Total(
            self.registry, "detectd_log_entries_resent", "Entries sent to the log again: their answer was lost or late."
        )
        self.gap_entries = self._counter("log_gap_entries", "Entries that the log dropped before they were read.")
        self.latency = Spread(
            self.registry,
            "detectd_report_latency_seconds",
            "From a report's receipt by the log until its effects are stored.",
            LATENCY_S,
        )

    def _about_actors(self) -> None:
        self.actor_reports = self._counter("actor_reports", "Reports judged, by actor.", "actor")
        self.actor_restarts = self._counter("actor_restarts", "Actors rebuilt after a crash.", "actor")
        self.poison = self._counter("poison_entries", "Log entries set aside because they crash an actor.", "actor")
        self.mailbox_depth = self._gauge("mailbox_depth", "Batches waiting for an actor.", "actor")
        self.handle_seconds = self._histogram("handle_seconds", "One call of an actor: a batch judged.", WORK_S)
        self.decode_seconds = self._histogram("decode_seconds", "Decoding and routing one batch.", WORK_S)

    def _about_storage(self) -> None:
        self.store_queue_depth = self._gauge("store_queue_depth", "Writes waiting for the store.")
        self.store_commit_seconds = self._histogram("store_commit_seconds", "One transaction of the store.", WORK_S)
        self.store_full = self._gauge("store_full", "1 while the store can't write for want of room.")
        self.store_broken_off = Total(
            self.registry,
            "detectd_store_reads_broken_off",
            "Short reads that turned out to be long, and went to a thread.",
        )
        self.store_waits = Total(
            self.registry, "detectd_store_waits", "Writes that had to wait for a place in the store's queue."
        )
        self.events_repeated = Total(
            self.registry, "detectd_events_repeated", "Events recognised as stored before: the log was read again."
        )
        self.poison_refused = Total(
            self.registry, "detectd_poison_refused", "Entries that the list of those set aside had no room for."
        )
        self.checkpoint_seconds = self._histogram("checkpoint_seconds", "Writing one checkpoint.", LATENCY_S)
        self.checkpoint_bytes = self._gauge("checkpoint_bytes", "Size of the last checkpoint.")
        self.checkpoint_age = self._gauge("checkpoint_age_seconds", "Time since the last checkpoint was complete.")

    def _about_delivery(self) -> None:
        self.deliveries = self._counter(
            "deliveries", "Attempts to deliver, by what came of them.", "receiver", "outcome"
        )
        self.outbox_depth = self._gauge("outbox_depth", "Notices waiting to be delivered.", "receiver")
        self.outbox_oldest_age = self._gauge(
            "outbox_oldest_age_seconds", "Age of the oldest notice that waits, 0 when none does.", "receiver"
        )

    def _about_configuration(self) -> None:
        self.config_generation = self._gauge("config_generation", "Number of the configuration in force.")
        self.reload_successful = self._gauge("config_last_reload_successful", "1 when the last reload was accepted.")
        self.reload_success_time = self._gauge(
            "config_last_reload_success_timestamp_seconds", "When a configuration was last accepted."
        )
        self.reload_failures = self._counter("config_reload_failures", "Reloads refused: the old one stays in force.")

    def _about_brokers(self) -> None:
        self.bridge_connected = self._gauge("bridge_connected", "1 while subscribed at the other broker.", "bridge")
        self.bridge_last_message = self._gauge(
            "bridge_last_message_timestamp_seconds", "When a message last came from the other broker.", "bridge"
        )
        self.bridge_silent = self._gauge(
            "bridge_silent", "1 while nothing has come from the other broker for `silent_s`.", "bridge"
        )
        self.bridge_totals = {
            name: Total(self.registry, f"detectd_bridge_{name}", text, "bridge") for name, text in BRIDGE_TOTALS.items()
        }
        self.source_connected = self._gauge("source_connected", "1 while a source can be read.", "source")
        self.source_last_heard = self._gauge(
            "source_last_heard_timestamp_seconds", "When a source last told of a client.", "source"
        )
        self.source_behind = self._gauge("source_behind_bytes", "What a log file has that is not read yet.", "source")
        self.source_totals = {
            name: Total(self.registry, f"detectd_source_{name}", text, "source") for name, text in SOURCE_TOTALS.items()
        }
        self.device_gauges = {name: self._gauge(name, text) for name, text in DEVICE_GAUGES.items()}
        self.device_totals = {
            name: Total(self.registry, f"detectd_{name}", text) for name, text in DEVICE_TOTALS.items()
        }
        self.devices_refused = Total(self.registry, "detectd_devices_refused", "Clients turned away.", "reason")
        self.sensor_connections = self._gauge("sensor_connections", "Clients that are connected.", "sensor")
        self.sensor_totals = {
            name: Total(self.registry, f"detectd_sensor_{name}", text, "sensor") for name, text in SENSOR_TOTALS.items()
        }
        self.nats_restarts = self._counter("nats_restarts", "Times nats-server was started again after it died.")
        self.nats_violations = self._counter("nats_permission_violations", "Publishes and subscriptions refused.")
        self.nats_mqtt5_refused = self._counter("nats_mqtt5_refused", "MQTT 5 clients that nats-server turned away.")
        self.nats_trouble = self._counter(
            "nats_trouble", "What nats-server could not do: messages dropped, marks not written ...", "kind"
        )
        self.guard_unguarded = self._counter(
            "guard_unguarded", "Acknowledged messages that the guard had dropped before they could be compared."
        )
        self.guard_copied = self._counter("guard_copied", "Acknowledged reports copied into the log after a crash.")

    def _about_the_process(self) -> None:
        self.ready = self._gauge("ready", "1 while /-/ready says yes.")
        self.http_requests = self._counter("http_requests", "HTTP requests answered.", "code")
        self._http_request = lru_cache(self.http_requests.labels)  # to look a label up costs more than to count
        self.http_refused = self._counter("http_refused", "Connections and requests turned away, by reason.", "reason")
        self.history_failing = self._gauge("history_failing", "1 while metric values can't be written.")
        self.history_totals = {
            name: Total(self.registry, f"detectd_history_{name}", text) for name, text in HISTORY_TOTALS.items()
        }
        self.export_held = self._gauge("export_held_bytes", "Exported metrics that wait for their time.")
        self.export_totals = {
            name: Total(self.registry, f"detectd_export_{name}", text) for name, text in EXPORT_TOTALS.items()
        }
        self.access_denied = Total(self.registry, "detectd_access_denied", "Requests denied, by reason.", "reason")
        self.access_evicted = Total(
            self.registry,
            "detectd_access_failures_evicted",
            "Addresses whose failures were forgotten for want of room.",
        )
        self.api_requests = self._counter("api_requests", "Requests to the AWS API, by outcome.", "operation", "code")
        self._api_request = lru_cache(self.api_requests.labels)
        self.logs_suppressed = Total(self.registry, "detectd_log_lines_suppressed", "Log lines held back in a flood.")
        self.actor_failures = self._gauge("actors_failed", "Actors that were given up.")
        build = self._gauge("build_info", "The running program; always 1.", "version", "python")
        build.labels(_own_version(), platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="detectd", registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace="detectd", registry=self.registry)

    def _histogram(self, name: str, text: str, bounds_s: Iterable[float]) -> Histogram:
        return Histogram(name, text, (), namespace="detectd", registry=self.registry, buckets=tuple(bounds_s))


BRIDGE_TOTALS: Final = {
    "received": "Messages received from the other broker.",
    "stored": "Of these, reports that the log has stored.",
    "retained": "Retained messages ignored: old news, not a report of now.",
    "oversize": "Messages longer than the limit: cut; of reports the core rejects what is left.",
    "misnamed": "Messages whose topic names no possible thing, ignored.",
    "repeated": "Messages delivered again after a reconnect that the log already had.",
    "pauses": "Times the broker was made to wait because too much waited to be stored.",
    "reconnects": "Connections made after the first.",
    "replies_sent": "Replies handed to the other broker.",
    "replies_dropped": "Replies dropped: the broker was away or slow, or takes none.",
    "exports_sent": "Messages of exported metrics handed to the other broker.",
    "exports_dropped": "Messages of exported metrics dropped: the broker was away or slow.",
    "events": "Events stored: what its clients did, equal ones summed.",
    "redelivered": "Messages about clients that came a second time after a crash, and may count twice.",
    "unreadable": "Messages about clients that made no sense.",
}


SOURCE_TOTALS: Final = {
    "lines": "Lines read from a log file.",
    "heard": "Messages of the cluster's system account about clients.",
    "unreadable": "Lines or messages that made no sense.",
    "ambiguous": "Lines that can be read in two ways, because of a client's strange id: they count for nobody.",
    "cut": "Lines that the broker cut short: a message has no size, or the client no name.",
    "nameless": "Connections that ended before the log knew the client's name: logins that failed, mostly.",
    "forgotten": "Connected clients that were forgotten for want of room.",
    "shed": "Messages dropped because the log was out of reach for too long.",
    "lost": "Times that a log file, or the place in it, was gone before its end was read.",
    "rewritten": "Times that a log file was truncated.",
    "skipped_bytes": "Bytes passed over because too much waited to be read.",
    "stored": "Entries that the log has stored.",
    "repeated": "Attempts to store that failed, and were made again.",
    "refused": "Entries that the log will never take, dropped.",
    "unnoted": "Times that the place in a log file could not be written down.",
    "reconnects": "Connections made after the first.",
}

DEVICE_GAUGES: Final = {
    "devices_listed": "Devices that the file of credentials names, revoked ones too.",
    "devices_file_damaged": "1 while the file of credentials can't be used: what it said before is in force.",
    "logins_waiting": "Passwords that wait for their check.",
}
DEVICE_TOTALS: Final = {
    "logins_forgotten": "Good logins that must be checked anew, for want of room to remember them.",
    "logins_failures_evicted": "Addresses whose failed logins were forgotten for want of room.",
}

SENSOR_TOTALS: Final = {
    "accepted": "TCP connections that clients made.",
    "connected": "Clients that the broker took.",
    "connect_failed": "Attempts to connect that came to nothing, of those that said who they are.",
    "disconnected": "Connections that ended.",
    "left": "Of these, those that the client ended as it should, by DISCONNECT.",
    "published": "Messages that clients published.",
    "reports": "Of these, reports that went into the log at once, and were acknowledged when it had them.",
    "report_waits": "Times a client waited because the log had not taken the reports of before.",
    "delivered": "Messages that the broker delivered to clients.",
    "denied": "Publishes, subscriptions and logins that were refused.",
    "refused": "Clients that were not let in.",
    "revoked": "Clients that were put out: what they may is not what it was.",
    "silent": "Connections closed because no CONNECT came in time.",
    "lapsed": "Connections closed because nothing came for one and a half times their keep-alive.",
    "malformed": "Connections closed because of bytes that are no MQTT.",
    "oversize": "Connections closed because of a header that is too long, or no room to keep it.",
    "crowded": "Connections closed because there were too many.",
    "handshakes_failed": "Connections that did not get through TLS.",
    "unreachable": "Clients turned away because the broker was not there.",
    "unnamed": "Clients connected without an id, or one that is too long: of them there are no events.",
    "pauses": "Times a client waited because there was no room for what is noted of it.",
    "stored": "Broker events that the log has stored.",
    "dropped": "Facts not noted: the log was away for too long.",
}


def _own_version() -> str:
    try:
        return version("detectd")
    except PackageNotFoundError:
        return "0+source"  # run from a checkout that was never installed


EXPORT_TOTALS: Final = {
    "datapoints": "Datapoints of exported metrics handed to a broker.",
    "messages": "Messages that held them.",
    "passed_over": "Reports, events and windows' values not exported: too many waited.",
    "dropped": "Datapoints dropped: too many were held for the next batch.",
    "oversize": "Datapoints dropped that no message can hold.",
    "unsent": "Datapoints dropped because their broker was away, or did not take them.",
    "failed": "Batches dropped because of a bug; the log has it.",
}


HISTORY_TOTALS: Final = {
    "rows": "Reports whose metric values were kept.",
    "refused": "Reports not kept, of things beyond limits.things_max.",
    "turned_away": "Values of windows for which the queue had no room.",
    "waits": "Times that reading waited for room in the history's queue.",
    "behind": "Times that the disk could not follow, and the log was read again.",
    "lost": "Entries that the log had dropped before they were read again.",
    "holes": "Starts behind the history's position: what lies between is missing.",
    "expired": "Pieces of history that became too old.",
    "dropped": "Pieces of history that went early, to keep to its most bytes.",
    "started_afresh": "Damaged history files that were set aside.",
}
