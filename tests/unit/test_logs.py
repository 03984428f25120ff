"""What the logs say, in which form, what they never say, and how they bear a flood."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from config.model import Logging
from config.secret import Secret
from daemon.logs import RateLimited, configure, keep_secrets, set_level

NS = 1_000_000_000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def configured(level: str = "info", form: str = "auto", out: io.StringIO | None = None) -> io.StringIO:
    out = out or io.StringIO()
    configure(Logging(level=level, format=form), out)  # type: ignore[arg-type]
    return out


def test_a_line_is_one_json_object_with_time_level_logger_and_message() -> None:
    out = configured()
    structlog.get_logger("daemon.reload").info("reload.refused", generation=7, profile="pumps")
    line = lines(out)[0]
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "daemon.reload",
        "msg": "reload.refused",
        "generation": 7,
        "profile": "pumps",
    }


def test_time_level_and_message_stand_first() -> None:
    out = configured()
    structlog.get_logger("x").info("hello", a=1)
    assert list(lines(out)[0]) == ["ts", "level", "msg", "logger", "a"]


def test_on_a_terminal_it_is_for_people() -> None:
    out = configured(out=Terminal())
    structlog.get_logger("x").warning("bridge.down", why="gone")
    assert "bridge.down" in out.getvalue()
    with pytest.raises(json.JSONDecodeError):
        lines(out)


def test_the_setting_wins_over_the_terminal() -> None:
    out = configured(form="json", out=Terminal())
    structlog.get_logger("x").info("hello")
    assert lines(out)[0]["msg"] == "hello"


def test_the_libraries_lines_come_in_the_same_form() -> None:
    out = configured()
    logging.getLogger("aiohttp.server").error("Error handling request from %s", "127.0.0.1")
    line = lines(out)[0]
    assert (line["logger"], line["level"]) == ("aiohttp.server", "error")
    assert line["msg"] == "Error handling request from 127.0.0.1"


def test_a_traceback_stays_inside_its_line() -> None:
    out = configured()
    try:
        raise ValueError("bad row")
    except ValueError:
        structlog.get_logger("x").exception("actor.crashed", actor="pumps")
    assert len(lines(out)) == 1
    assert "ValueError: bad row" in lines(out)[0]["exception"]


def test_a_level_takes_effect_for_loggers_that_exist() -> None:
    out = configured()
    log = structlog.get_logger("x")
    log.debug("unseen")
    set_level("debug")
    log.debug("seen")
    set_level("error")
    log.warning("unseen")
    assert [line["msg"] for line in lines(out)] == ["seen"]


def test_configuring_again_does_not_write_twice() -> None:
    out = configured()
    configured(out=out)
    structlog.get_logger("x").info("once")
    assert len(lines(out)) == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_is_in_no_line_wherever_it_hides(form: str) -> None:
    secret = Secret("hunter2")
    out = configured(form=form)
    log = structlog.get_logger("x")
    log.info("a", key=secret, nested={"list": [secret, (secret,)]}, text=f"{secret}")
    log.bind(key=secret).info("b")
    logging.getLogger("lib").error("failed with %s", secret)
    assert "hunter2" not in out.getvalue()
    assert out.getvalue().count("<secret>") >= 5


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_user_part_of_a_url_is_masked_in_tracebacks_too(form: str) -> None:
    out = configured(form=form)
    structlog.get_logger("x").info("a", url="mqtt://me:hunter2@broker:1883/x")
    try:
        raise OSError("can't reach nats://me:hunter2@host")
    except OSError:
        structlog.get_logger("x").exception("b")
    assert "hunter2" not in out.getvalue()
    assert "mqtt://<secret>@broker:1883/x" in out.getvalue()


def test_what_is_no_secret_is_left_as_it_is() -> None:
    event = {"n": 1, "text": "a@b", "t": (1, "x"), "none": None}
    assert keep_secrets(None, "info", dict(event)) == event


def test_a_value_that_json_does_not_know_is_written_as_text() -> None:
    out = configured()
    structlog.get_logger("x").info("a", what={1, 2}, raw=b"\xff")
    assert lines(out)[0]["msg"] == "a"


def test_lines_beyond_the_limit_are_held_back_and_told_with_the_next() -> None:
    limited = RateLimited(per_s=2)
    assert [limited.allow("bad", 0) for _ in range(5)] == [0, 0, None, None, None]
    assert limited.allow("bad", NS) == 3
    assert limited.allow("bad", NS) == 0
    assert limited.suppressed == 3


def test_one_flood_does_not_silence_another_event() -> None:
    limited = RateLimited(per_s=1)
    assert limited.allow("flood", 0) == 0
    assert limited.allow("flood", 0) is None
    assert limited.allow("news", 0) == 0


def test_what_was_held_back_last_can_be_told_when_the_flood_is_over() -> None:
    limited = RateLimited(per_s=1)
    for _ in range(4):
        limited.allow("bad", 0)
    assert limited.drain() == {"bad": 3}
    assert limited.drain() == {}


def test_hostile_keys_do_not_grow_memory_and_what_is_forgotten_is_counted() -> None:
    limited = RateLimited(per_s=1, keys_max=10)
    for i in range(1000):
        limited.allow(f"key {i}", 0)
        limited.allow(f"key {i}", 0)
    assert limited.suppressed == 1000
    assert limited.forgotten == 990
    assert sum(limited.drain().values()) == 10


def test_a_limited_warning_carries_the_number_held_back() -> None:
    out = configured()
    limited, log = RateLimited(per_s=1), structlog.get_logger("x")
    for now_ns in (0, 0, 0, NS):
        limited.warning(log, "report.rejected", now_ns, reason="malformed")
    assert [(line["msg"], line.get("suppressed")) for line in lines(out)] == [
        ("report.rejected", None),
        ("report.rejected", 2),
    ]


def test_a_clock_that_steps_back_opens_a_new_second_and_nothing_worse() -> None:
    limited = RateLimited(per_s=1)
    assert limited.allow("x", 10 * NS) == 0
    assert limited.allow("x", 9 * NS) == 0
