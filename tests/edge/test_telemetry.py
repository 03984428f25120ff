"""The metrics: what a scrape shows, that Prometheus' own linter likes it, and that labels stay bounded."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.brokers._base import Counts
from daemon.telemetry import Telemetry
from daemon.totals import BRIDGE_TOTALS


def used() -> Telemetry:
    """One with a sample under every label, as after an eventful day."""
    telemetry = Telemetry()
    telemetry.reports_rejected.labels("malformed").inc(3)
    telemetry.events.labels("in-alarm", "Factory", "ports").inc()
    telemetry.handled("pumps", 0.002, 512)
    telemetry.restarted("pumps")
    telemetry.poisoned("pumps")
    telemetry.mailbox_depth.labels("pumps").set(2)
    telemetry.rows.labels("pumps").set(10)
    telemetry.deliveries.labels("ops", "delivered").inc()
    telemetry.outbox_depth.labels("ops").set(1)
    telemetry.outbox_oldest_age.labels("ops").set(1.5)
    telemetry.watch_bridge("plant", Counts(received=7, connected=True, last_message_ns=1_700_000_000_500_000_000))
    for total in (telemetry.replies_sent, telemetry.replies_dropped, telemetry.logs_suppressed):
        total.read_from(lambda: 5)
    telemetry.latency.observe(np.array([0.0004, 0.002, 7.0]))
    telemetry.answered(200)
    telemetry.refused("host")
    return telemetry


def samples(telemetry: Telemetry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(telemetry.render().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_prometheus_own_linter_finds_nothing() -> None:
    binary = shutil.which("promtool")
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool (Debian package prometheus) is not installed, and CI must have it")
        pytest.skip("promtool (Debian package prometheus) is not installed")
    linted = subprocess.run([binary, "check", "metrics"], input=used().render(), capture_output=True, check=False)
    assert (linted.returncode, linted.stderr + linted.stdout) == (0, b"")


def test_every_metric_of_ours_has_the_prefix_and_says_what_it_is() -> None:
    for family in text_string_to_metric_families(used().render().decode()):
        assert family.name.startswith(("detectd_", "process_", "python_gc_")), family.name
        assert family.documentation, family.name


def test_no_label_could_name_a_thing() -> None:
    allowed = {"reason", "type", "profile", "behavior", "actor", "receiver", "outcome", "bridge", "code", "le"}
    allowed |= {"version", "python", "generation"}  # of build_info and of Python's collector
    names = {name for _, labels in samples(used()) for name, _ in labels}
    assert names <= allowed


def test_two_daemons_in_one_process_do_not_share_numbers() -> None:
    first, second = Telemetry(), Telemetry()
    first.reports_received.inc(5)
    assert samples(second)["detectd_reports_received_total", ()] == 0


def test_a_batch_of_latencies_fills_the_buckets_as_one_by_one_would() -> None:
    telemetry = Telemetry()
    telemetry.latency.observe(np.array([0.0005, 0.00051, 61.0]))
    telemetry.latency.observe(np.array([-0.5]))
    telemetry.latency.observe(np.array([]))
    shown = samples(telemetry)
    name = "detectd_report_latency_seconds"
    assert shown[f"{name}_bucket", (("le", "0.0005"),)] == 2, (
        "a bound belongs to its bucket; a negative one counts as 0"
    )
    assert shown[f"{name}_bucket", (("le", "0.001"),)] == 3
    assert shown[f"{name}_bucket", (("le", "60.0"),)] == 3
    assert shown[f"{name}_bucket", (("le", "+Inf"),)] == 4
    assert shown[f"{name}_count", ()] == 4
    assert shown[f"{name}_sum", ()] == pytest.approx(61.00101)


def test_a_total_is_read_at_the_moment_of_the_scrape() -> None:
    telemetry, counts = Telemetry(), Counts()
    telemetry.watch_bridge("plant", counts)
    counts.stored, counts.connected, counts.last_message_ns = 12, True, 1_700_000_000_500_000_000
    label = (("bridge", "plant"),)
    shown = samples(telemetry)
    assert shown["detectd_bridge_stored_total", label] == 12
    assert shown["detectd_bridge_connected", label] == 1
    assert shown["detectd_bridge_last_message_timestamp_seconds", label] == 1_700_000_000.5


def test_every_total_of_a_bridge_is_something_that_a_bridge_counts() -> None:
    assert set(BRIDGE_TOTALS) <= set(Counts.__slots__)


@pytest.mark.parametrize(
    ("forget", "gone"), [("forget_actor", "pumps"), ("forget_receiver", "ops"), ("forget_bridge", "plant")]
)
def test_what_left_the_configuration_leaves_the_scrape(forget: str, gone: str) -> None:
    telemetry = used()
    assert any(value == gone for _, labels in samples(telemetry) for _, value in labels)
    getattr(telemetry, forget)(gone)
    assert not any(value == gone for _, labels in samples(telemetry) for _, value in labels)
    getattr(telemetry, forget)("never seen")


def test_the_running_program_is_named() -> None:
    names = [labels for name, labels in samples(Telemetry()) if name == "detectd_build_info"]
    assert dict(names[0])["version"]
