"""What becomes of the server, in the words of `/-/ready`."""

import pytest

from daemon.clock import VirtualClock
from daemon.host import News
from daemon.telemetry import Telemetry


@pytest.mark.parametrize(
    ("trouble", "facts", "words"),
    [
        ("stalled", {"reason": "JetStream can't write: is the disk full?"}, "JetStream can't write"),
        ("failed", {"error": "OSError: [Errno 28] No space left on device"}, "No space left"),
    ],
)
def test_while_the_server_is_away_its_trouble_is_named_until_devices_are_let_in(
    trouble: str, facts: dict[str, object], words: str
) -> None:
    states: list[str] = []
    news = News(states.append, Telemetry(), VirtualClock())
    news.server("died", {"code": 1})
    assert states[-1] == "nats-server died"
    news.server(trouble, facts)
    news.server("died", {"code": 1})
    assert words in states[-1]
    news.server("started", {})
    assert "when the log is whole" in states[-1]
    news.server("opened", {})
    news.server("died", {"code": 1})
    assert states[-1] == "nats-server died"
