"""README says what is so: every setting with its default, examples that load, commands and endpoints that exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from actors.metrics import kinds
from config.diff import RELOADABLE
from config.load import load
from config.model import (
    AccessKey,
    Bridge,
    Client,
    Daemon,
    Devices,
    Embedded,
    Group,
    MosquittoLog,
    Nats,
    Rules,
    Sensor,
    Settings,
    Tls,
    Webhook,
)
from daemon.__main__ import _parser
from daemon.telemetry import Telemetry

README = (Path(__file__).parents[2] / "README.md").read_text()
ROW = re.compile(r"^\| (`.+?`) ?(↻)? \| (.+?) \| (.*) \|$", re.MULTILINE)
NOT_SET = {"sources", "origin"}  # found out while loading
OBJECTS: dict[str, type[Daemon]] = {"broker.embedded": Embedded, "broker.nats": Nats, "broker.devices": Devices}


def rows() -> dict[str, tuple[bool, str, str]]:
    """{setting: (reloadable, default as text, meaning)}."""
    found = {}
    for names, mark, default, meaning in ROW.findall(README):
        for name in re.findall(r"`([^`]+)`", names):
            found[name] = (bool(mark), default, meaning)
    return found


def settings(kind: type[msgspec.Struct] = Settings, above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name as one writes it, default)."""
    for field in msgspec.structs.fields(kind):
        name = above + field.name
        below = OBJECTS.get(name) or _structure(field.type)
        if field.name in NOT_SET:
            continue
        if below is Rules:
            yield from settings(Rules)
        elif below is not None and below is not Tls:
            yield from settings(below, f"{name}.")
        else:
            yield name, {} if field.default_factory is dict else field.default


def _structure(kind: Any) -> type[msgspec.Struct] | None:
    """The structure that a field holds, if it holds one; lists and tables of them are one setting."""
    of = [one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    return of[0] if of and not hasattr(kind, "__origin__") else None


def shown(default: Any) -> str:
    """A default as README writes it."""
    if default in ((), None, {}):
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int) and default % 2**20 == 0:
        return f"{default // 2**30} GiB" if default % 2**30 == 0 else f"{default // 2**20} MiB"
    return str(int(default)) if isinstance(default, float) else str(default)


@pytest.mark.parametrize(("name", "default"), list(settings()))
def test_every_setting_is_in_the_table_with_its_default(name: str, default: Any) -> None:
    _, written, _ = rows()[name]
    if name == "limits.report_interval_s":  # depends on the command
        assert "300" in written
    elif default is msgspec.NODEFAULT:
        assert written == "–"
    else:
        assert written.strip("`") == shown(default)


@pytest.mark.parametrize("name", [name for name, _ in settings()])
def test_the_mark_says_whether_a_reload_takes_a_setting_over(name: str) -> None:
    is_rule = name.split(".", maxsplit=1)[0] in Rules.__struct_fields__
    expected = is_rule or any(name == one or name.startswith(one + ".") for one in RELOADABLE)
    assert rows()[name][0] == expected


@pytest.mark.parametrize(("name", "kind"), [("broker.bridges", Bridge), ("receivers.webhooks", Webhook),
                                            ("http.access_keys", AccessKey), ("http.tls", Tls),
                                            ("broker.embedded.tls", Tls), ("fleet.groups", Group),
                                            ("broker.sensors", Sensor), ("broker.mosquitto_logs", MosquittoLog),
                                            ("clients", Client)])  # fmt: skip
def test_every_member_of_a_setting_is_named(name: str, kind: type[msgspec.Struct]) -> None:
    meaning = rows()[name][2]
    for member in kind.__struct_fields__:
        assert member in rows() or re.search(rf"\b{member}\b", meaning), member


def test_no_setting_is_described_that_does_not_exist() -> None:
    known = {name for name, _ in settings()} | set(Bridge.__struct_fields__)
    described = {name for name in rows() if re.fullmatch(r"[a-z_.]+", name)}
    assert described <= known


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_quick_start_is_valid(tmp_path: Path) -> None:
    config = next(block for block in blocks("yaml") if block.startswith("profiles:"))
    profile = next(block for block in blocks("yaml") if block.startswith("securityProfileName: pumps"))
    for name, text in (("detectd.yaml", config), ("profiles/pumps.yaml", profile), ("keys/ops", "whsec_" + "A" * 40)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "keys" / "ops").chmod(0o600)
    loaded = load(tmp_path / "detectd.yaml", kinds())
    assert loaded.warnings == ()
    assert [one.security_profile_name for one in loaded.settings.rules.profiles] == ["pumps"]


def test_the_explained_profile_is_valid(tmp_path: Path) -> None:
    profile = next(block for block in blocks("yaml") if block.startswith("securityProfileName: meters"))
    (tmp_path / "meters.yaml").write_text(profile)
    (tmp_path / "detectd.yaml").write_text(
        "profiles: [meters.yaml]\nfleet: {groups: {meters: {}}}\n"
        "custom_metrics: [{metricName: battery_percent, metricType: number}]\n"
        'dimensions: [{name: Telemetry, stringValues: ["dt/+/up"]}]\n'
    )
    assert load(tmp_path / "detectd.yaml", kinds()).warnings == ()


def test_every_command_is_described_and_no_other() -> None:
    commands = next(action.choices for action in _parser()._actions if action.choices)
    described = set(
        re.findall(
            r"\bdetectd (\w+)", next(part for part in README.split("\n\n") if "detectd serve --config FILE  " in part)
        )
    )
    assert described == set(commands)


def test_every_metric_that_is_named_exists() -> None:
    exist = Telemetry().render().decode()
    for name in set(re.findall(r"`(detectd_\w+)`", README)):
        assert f"# HELP {name} " in exist or f"# HELP {name.removesuffix('_total')}" in exist, name


def test_every_endpoint_is_described() -> None:
    routes = re.compile(r"add_(?:get|post)\(\"(/[^\"{]*)")
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "daemon" / "http").glob("*.py"))
    for path in routes.findall(source):
        assert f"`{path.rstrip('/')}" in README or f" {path.rstrip('/')}" in README, path
