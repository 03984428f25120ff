"""Definitions as files that `detectd check` takes: one per object, and a main file that names them all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from config.canonical import canonical
from config.kinds import Kinds
from config.model import CustomMetric, Dimension, Rules, SecurityProfile
from config.objects import check_one_custom_metric, check_one_dimension, check_one_profile
from config.problem import Finding, shown

MAIN: Final = "detectd.yaml"
FLEET: Final = "fleet.json"


class Exists(Exception):
    """Files are there already; the message names the first."""


def write(folder: Path, rules: Rules, *, force: bool) -> list[Path]:
    """Write the files; which. Existing ones are left alone unless `force`.

    Raises:
        Exists: nothing was written.
        OSError: the folder can't be written to.
    """
    files = {folder / name: body for name, body in _files(canonical(rules))}
    there = [path for path in files if path.exists()]
    if there and not force:
        raise Exists(f"{there[0]} is there already; --force writes over it")
    for path, body in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".new")
        beside.write_bytes(body)
        beside.replace(path)
    return list(files)


def _files(rules: Rules) -> Iterator[tuple[str, bytes]]:
    """(name, content); the main file last, so that it never names what is not there yet."""
    lines = []
    for collection, objects in (
        ("profiles", [(each.security_profile_name, each) for each in rules.profiles]),
        ("custom_metrics", [(each.metric_name, each) for each in rules.custom_metrics]),
        ("dimensions", [(each.name, each) for each in rules.dimensions]),
    ):
        if objects:
            lines.append(f"{collection}: [{collection}/*.json]\n")
        for name, each in objects:
            yield f"{collection}/{file_name(name)}.json", _json(msgspec.to_builtins(each))
    if rules.fleet.things or rules.fleet.groups:
        lines.append(f"fleet: {FLEET}\n")
        yield FLEET, _json(msgspec.to_builtins(rules.fleet))
    yield MAIN, "".join(lines or ["{}\n"]).encode()


def file_name(name: str) -> str:
    """A name as a file's: `:` and capitals would collide on other systems, so capitals get a `^`."""
    spelled = "".join(f"^{letter}" if letter.isupper() else letter for letter in name)
    return quote(spelled, safe="^")


def _json(body: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"


def sound(rules: Rules, kinds: Kinds) -> tuple[Rules, list[str]]:
    """What of these is valid, and why the rest is not, in words."""
    problems: list[str] = []
    metrics = _kept(
        rules.custom_metrics,
        problems,
        lambda each: (f"custom metric {each.metric_name}", check_one_custom_metric(each)),
    )
    dimensions = _kept(rules.dimensions, problems, lambda each: (f"dimension {each.name}", check_one_dimension(each)))
    among = msgspec.structs.replace(rules, custom_metrics=metrics, dimensions=dimensions)
    profiles = _kept(
        rules.profiles,
        problems,
        lambda each: (f"security profile {each.security_profile_name}", check_one_profile(each, among, kinds)),
    )
    return msgspec.structs.replace(among, profiles=profiles), problems


def _kept(objects: Any, problems: list[str], look: Any) -> Any:
    kept: list[SecurityProfile | CustomMetric | Dimension] = []
    for each in objects:
        what, findings = look(each)
        wrong: list[Finding] = [finding for finding in findings if not finding.is_warning]
        problems += [f"{what}: {shown(finding.path)}: {finding.message}" for finding in wrong]
        if not wrong:
            kept.append(each)
    return tuple(kept)
