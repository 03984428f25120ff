"""`detectd sources` as one runs it."""

import json
from pathlib import Path

import pytest

from daemon.__main__ import main

CONFIG = """
profiles:
  - securityProfileName: meters
    targets: [all/things]
    behaviors:
      - name: quiet
        metric: aws:num-messages-sent
        criteria: {comparisonOperator: less-than, value: {count: 5}, durationSeconds: 300}
broker:
  embedded: {sensor: false}
  mosquitto_logs: [{name: hall, path: hall.log}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "detectd.yaml"
    path.write_text(CONFIG)
    return path


def test_it_says_in_words_what_each_broker_gives(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "--config", str(config)]) == 0
    out, err = capsys.readouterr()
    assert "embedded: embedded broker\n" in out
    assert "for the rest: broker.embedded.sensor: true" in out
    assert f"hall: Mosquitto's log {config.parent}/hall.log" in out
    assert "aws:num-messages-sent           yes, with log_type debug" in out
    assert err == ""


def test_json_holds_the_same(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "--config", str(config), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [place["name"] for place in told["sources"]] == ["embedded", "hall"]
    assert told["sources"][1]["metrics"]["aws:num-messages-sent"] == {"seen": "yes", "needs": "log_type debug"}
    assert told["unseen"] == []


def test_a_behavior_that_nothing_feeds_is_a_warning(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(CONFIG.replace("  mosquitto_logs: [{name: hall, path: hall.log}]\n", ""))
    assert main(["sources", "--config", str(config)]) == 0
    assert "warning: meters/quiet: aws:num-messages-sent is told of by no source" in capsys.readouterr().err


def test_a_bad_configuration_is_refused(config: Path) -> None:
    config.write_text("broker: {mosquitto_logs: [{name: embedded, path: x}]}")
    assert main(["sources", "--config", str(config)]) == 1
    assert main(["sources", "--config", str(config.parent / "none.yaml")]) == 2
