"""Every number the daemon shows about itself, declared once, in Prometheus' terms: prefix, base units, help.

No label names a thing (a fleet has millions); labels are actors, receivers, bridges, profiles, behaviors and fixed
reasons, all bounded by the configuration. The hot path counts once per batch, never per report. Numbers that another
part keeps anyway (a queue's length, a bridge's totals) are read from there at the moment of the scrape.
"""

import platform
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Protocol

from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from actors.event_columns import DROPS
from actors.router import Router
from daemon.instruments import Instruments, Read
from daemon.totals import (
    BRIDGE_TOTALS,
    DEVICE_GAUGES,
    DEVICE_TOTALS,
    EXPORT_TOTALS,
    HISTORY_TOTALS,
    SENSOR_TOTALS,
    SOURCE_TOTALS,
)

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


class BridgeCounts(Protocol):
    """What a bridge keeps of itself (daemon/brokers/_base.py); it also has every name of BRIDGE_TOTALS."""

    connected: bool
    silent: bool
    last_message_ns: int


class SourceTotals(Protocol):
    """What a source keeps of itself (daemon/sources.py); it also has some names of SOURCE_TOTALS."""

    connected: bool
    last_heard_ns: int


class Telemetry:
    """All metrics of one daemon, in a registry of its own. Attributes are grouped by what they are about."""

    def __init__(self) -> None:
        self._make = Instruments()
        self.registry = self._make.registry
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
        """As `Instruments.render`."""
        return self._make.render()

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
        """Read what the export of metrics counts (`daemon.export`: `exporter.Counters`, `entries.Batches`)."""
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
        """Read what the doormen keep: every name of DEVICE_GAUGES and DEVICE_TOTALS; refusals by reason."""
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
        self.reports_received = self._make.counter("reports_received", "Reports read from the log.")
        self.reports_accepted = self._make.counter("reports_accepted", "Reports that passed every check.")
        self.reports_rejected = self._make.counter("reports_rejected", "Reports refused, by reason.", "reason")
        self.custom_values_ignored = self._make.counter(
            "custom_values_ignored", "Custom metric values without a definition, or not of its type, dropped."
        )
        self.control_entries = self._make.counter(
            "control_entries", "Log entries that are not reports: ticks, changes ..."
        )
        self.ticks = self._make.counter("ticks", "Ticks written into the idle log.")
        self.replies_sent = self._make.total("replies_sent", "Replies to devices handed to a broker.")
        self.replies_dropped = self._make.total(
            "replies_dropped", "Replies to devices dropped because the way out was full or down."
        )

    def _about_events(self) -> None:
        """What brokers tell of their clients (actors/event_columns.py)."""
        self.broker_events = self._make.total(
            "broker_events", "Facts told by brokers that count: messages, connections, refusals."
        )
        self.broker_events_dropped = self._make.total(
            "broker_events_dropped",
            "Facts dropped: unreadable entries, repeated ones, of clients without a name, beyond limits.things_max.",
            "reason",
        )
        self.broker_events_ahead = self._make.total(
            "broker_events_ahead",
            "Facts stamped later than they came: they count then.",
        )
        self.topics_flushed = self._make.total(
            "topic_cache_flushes", "Times that the cache of topics and dimensions was full."
        )
        self.clients_known = self._make.gauge("clients", "Clients of brokers that are remembered.")
        self.events_late = self._make.gauge(
            "window_events_late", "Facts dropped from a window that was closed when they came.", "actor"
        )
        self.addresses_crowded = self._make.gauge(
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
        self.events = self._make.counter("events", "Violation events stored.", "type", "profile", "behavior")
        self.active_violations = self._make.gauge("active_violations", "Things x behaviors now in alarm.")
        self.values_merged = self._make.gauge(
            "window_values_merged", "Values of sliding sums merged because a thing's ring was full.", "actor"
        )
        self.rows = self._make.gauge("rows", "Things with state in an actor.", "actor")

    def _about_the_log(self) -> None:
        self.log_position = self._make.gauge("log_position", "Position of the last log entry whose effects are stored.")
        self.log_last_seq = self._make.gauge("log_last_sequence", "Position of the last entry that the log has.")
        self.log_lag = self._make.gauge("log_lag_entries", "Entries of the log not yet judged and stored.")
        self.log_connected = self._make.gauge("log_connected", "1 while the log can be read.")
        self.gaps = self._make.counter("log_gaps", "Times the log had dropped entries before they were read.")
        self.entries_echoed = self._make.total(
            "log_entries_echoed", "Entries of the log that were read without being sent back."
        )
        self.echo_breaks = self._make.total(
            "log_echo_breaks", "Times that the log itself had to be read again instead."
        )
        self.entries_resent = self._make.total(
            "log_entries_resent", "Entries sent to the log again: their answer was lost or late."
        )
        self.gap_entries = self._make.counter("log_gap_entries", "Entries that the log dropped before they were read.")
        self.latency = self._make.spread(
            "report_latency_seconds",
            "From a report's receipt by the log until its effects are stored.",
            LATENCY_S,
        )

    def _about_actors(self) -> None:
        self.actor_reports = self._make.counter("actor_reports", "Reports judged, by actor.", "actor")
        self.actor_restarts = self._make.counter("actor_restarts", "Actors rebuilt after a crash.", "actor")
        self.poison = self._make.counter(
            "poison_entries", "Log entries set aside because they crash an actor.", "actor"
        )
        self.mailbox_depth = self._make.gauge("mailbox_depth", "Batches waiting for an actor.", "actor")
        self.handle_seconds = self._make.histogram("handle_seconds", "One call of an actor: a batch judged.", WORK_S)
        self.decode_seconds = self._make.histogram("decode_seconds", "Decoding and routing one batch.", WORK_S)

    def _about_storage(self) -> None:
        self.store_queue_depth = self._make.gauge("store_queue_depth", "Writes waiting for the store.")
        self.store_commit_seconds = self._make.histogram(
            "store_commit_seconds", "One transaction of the store.", WORK_S
        )
        self.store_full = self._make.gauge("store_full", "1 while the store can't write for want of room.")
        self.store_broken_off = self._make.total(
            "store_reads_broken_off",
            "Short reads that turned out to be long, and went to a thread.",
        )
        self.store_waits = self._make.total("store_waits", "Writes that had to wait for a place in the store's queue.")
        self.events_repeated = self._make.total(
            "events_repeated", "Events recognised as stored before: the log was read again."
        )
        self.poison_refused = self._make.total(
            "poison_refused", "Entries that the list of those set aside had no room for."
        )
        self.checkpoint_seconds = self._make.histogram("checkpoint_seconds", "Writing one checkpoint.", LATENCY_S)
        self.checkpoint_bytes = self._make.gauge("checkpoint_bytes", "Size of the last checkpoint.")
        self.checkpoint_age = self._make.gauge("checkpoint_age_seconds", "Time since the last checkpoint was complete.")

    def _about_delivery(self) -> None:
        self.deliveries = self._make.counter(
            "deliveries", "Attempts to deliver, by what came of them.", "receiver", "outcome"
        )
        self.outbox_depth = self._make.gauge("outbox_depth", "Notices waiting to be delivered.", "receiver")
        self.outbox_oldest_age = self._make.gauge(
            "outbox_oldest_age_seconds", "Age of the oldest notice that waits, 0 when none does.", "receiver"
        )

    def _about_configuration(self) -> None:
        self.config_generation = self._make.gauge("config_generation", "Number of the configuration in force.")
        self.reload_successful = self._make.gauge(
            "config_last_reload_successful", "1 when the last reload was accepted."
        )
        self.reload_success_time = self._make.gauge(
            "config_last_reload_success_timestamp_seconds", "When a configuration was last accepted."
        )
        self.reload_failures = self._make.counter(
            "config_reload_failures", "Reloads refused: the old one stays in force."
        )

    def _about_brokers(self) -> None:
        self.bridge_connected = self._make.gauge(
            "bridge_connected", "1 while subscribed at the other broker.", "bridge"
        )
        self.bridge_last_message = self._make.gauge(
            "bridge_last_message_timestamp_seconds", "When a message last came from the other broker.", "bridge"
        )
        self.bridge_silent = self._make.gauge(
            "bridge_silent", "1 while nothing has come from the other broker for `silent_s`.", "bridge"
        )
        self.bridge_totals = self._make.totals("bridge", BRIDGE_TOTALS, "bridge")
        self.source_connected = self._make.gauge("source_connected", "1 while a source can be read.", "source")
        self.source_last_heard = self._make.gauge(
            "source_last_heard_timestamp_seconds", "When a source last told of a client.", "source"
        )
        self.source_behind = self._make.gauge(
            "source_behind_bytes", "What a log file has that is not read yet.", "source"
        )
        self.source_totals = self._make.totals("source", SOURCE_TOTALS, "source")
        self.device_gauges = {name: self._make.gauge(name, text) for name, text in DEVICE_GAUGES.items()}
        self.device_totals = self._make.totals("", DEVICE_TOTALS)
        self.devices_refused = self._make.total("devices_refused", "Clients turned away.", "reason")
        self.sensor_connections = self._make.gauge("sensor_connections", "Clients that are connected.", "sensor")
        self.sensor_totals = self._make.totals("sensor", SENSOR_TOTALS, "sensor")
        self.nats_restarts = self._make.counter("nats_restarts", "Times nats-server was started again after it died.")
        self.nats_violations = self._make.counter("nats_permission_violations", "Publishes and subscriptions refused.")
        self.nats_mqtt5_refused = self._make.counter(
            "nats_mqtt5_refused", "MQTT 5 clients that nats-server turned away."
        )
        self.nats_trouble = self._make.counter(
            "nats_trouble", "What nats-server could not do: messages dropped, marks not written ...", "kind"
        )
        self.guard_unguarded = self._make.counter(
            "guard_unguarded", "Acknowledged messages that the guard had dropped before they could be compared."
        )
        self.guard_copied = self._make.counter(
            "guard_copied", "Acknowledged reports copied into the log after a crash."
        )

    def _about_the_process(self) -> None:
        self.ready = self._make.gauge("ready", "1 while /-/ready says yes.")
        self.http_requests = self._make.counter("http_requests", "HTTP requests answered.", "code")
        self._http_request = lru_cache(self.http_requests.labels)  # to look a label up costs more than to count
        self.http_refused = self._make.counter(
            "http_refused", "Connections and requests turned away, by reason.", "reason"
        )
        self.history_failing = self._make.gauge("history_failing", "1 while metric values can't be written.")
        self.history_totals = self._make.totals("history", HISTORY_TOTALS)
        self.export_held = self._make.gauge("export_held_bytes", "Exported metrics that wait for their time.")
        self.export_totals = self._make.totals("export", EXPORT_TOTALS)
        self.access_denied = self._make.total("access_denied", "Requests denied, by reason.", "reason")
        self.access_evicted = self._make.total(
            "access_failures_evicted",
            "Addresses whose failures were forgotten for want of room.",
        )
        self.api_requests = self._make.counter(
            "api_requests", "Requests to the AWS API, by outcome.", "operation", "code"
        )
        self._api_request = lru_cache(self.api_requests.labels)
        self.logs_suppressed = self._make.total("log_lines_suppressed", "Log lines held back in a flood.")
        self.actor_failures = self._make.gauge("actors_failed", "Actors that were given up.")
        build = self._make.gauge("build_info", "The running program; always 1.", "version", "python")
        build.labels(_own_version(), platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)


def _own_version() -> str:
    try:
        return version("detectd")
    except PackageNotFoundError:
        return "0+source"  # run from a checkout that was never installed
