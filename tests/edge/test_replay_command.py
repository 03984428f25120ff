"""`detectd replay --until`: a moment, exact, or exit 2 in words."""

from argparse import Namespace
from pathlib import Path

import pytest
from system_tools import write

from daemon.commands.replay import _instant_ns, replay


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1767323045.29", 1_767_323_045_290_000_000),
        ("2026-01-01T00:00:00.123456Z", 1_767_225_600_123_456_000),
        ("2026-01-01T01:00:00.5+01:00", 1_767_225_600_500_000_000),
        ("2026-01-01", 1_767_225_600_000_000_000),
    ],
)
def test_a_moment_is_exact_to_its_last_digit(text: str, ns: int) -> None:
    assert _instant_ns(text) == ns


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "1e400", "yesterday", ""])
def test_what_is_no_moment_is_wrong_use(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    reports = tmp_path / "reports.jsonl"
    reports.touch()
    config = write(tmp_path)
    assert replay(Namespace(config=config, input=reports, until=text or " ", what_if=False)) == 2
    assert capsys.readouterr().err.startswith("--until: ")
