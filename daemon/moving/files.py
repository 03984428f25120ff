"""Definitions as files that `detectd check` takes: one per object, and a main file that names them all.

DIR/detectd.yaml             names the rest
DIR/profiles/NAME.json       likewise custom_metrics/ and dimensions/
DIR/fleet.json
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from config.canonical import canonical
from config.model import Account, Rules
from daemon import whole_file

MAIN: Final = "detectd.yaml"
FLEET: Final = "fleet.json"
FOLDERS: Final = {"profiles": "security_profile_name", "custom_metrics": "metric_name", "dimensions": "name"}
_FILE_NAME_MAX: Final = 200
"""Bytes; most file systems have 255."""


class Exists(Exception):
    """Files are there already; the message names the first."""


def write(folder: Path, files: Mapping[str, bytes], *, force: bool) -> list[Path]:
    """Write files into a folder, each as a whole, in their order; which. Existing ones are left alone unless `force`.

    Raises:
        Exists: nothing was written.
        OSError: the folder can't be written to.
    """
    wanted = {folder / name: body for name, body in files.items()}
    there = [path for path in wanted if path.exists()] + others(folder, files)
    if there and not force:
        raise Exists(f"{there[0]} is there already; --force writes over what has the same name, and leaves the rest")
    for path, body in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        whole_file.write(path, body, whole_file.SHARED)
    return list(wanted)


def others(folder: Path, files: Iterable[str]) -> list[Path]:
    """Files in the folder that the main file's globs would bring in beside `files`."""
    mine = {folder / name for name in files}
    return sorted(path for name in FOLDERS for path in (folder / name).glob("*.json") if path not in mine)


def laid_out(rules: Rules, account: Account | None = None) -> dict[str, bytes]:
    """Name in the folder -> content; the main file last, so that it never names what is not there yet."""
    return dict(_files(canonical(rules), account))


def _files(rules: Rules, account: Account | None) -> Iterator[tuple[str, bytes]]:
    lines = [] if account is None else [f'account: {{id: "{account.id}", region: "{account.region}"}}\n']
    for collection, member in FOLDERS.items():
        objects = getattr(rules, collection)
        if objects:
            lines.append(f"{collection}: [{collection}/*.json]\n")
        for each in objects:
            yield f"{collection}/{file_name(getattr(each, member))}.json", _json(msgspec.to_builtins(each))
    if rules.fleet.things or rules.fleet.groups:
        lines.append(f"fleet: {FLEET}\n")
        yield FLEET, _json(msgspec.to_builtins(rules.fleet))
    if rules.limits.durations != "aws":
        lines.append(f"limits: {{durations: {rules.limits.durations}}}\n")
    yield MAIN, "".join(lines or ["{}\n"]).encode()


def file_name(name: str) -> str:
    """A name as a file's: `:` and capitals would collide on other systems, so capitals get a `^`.

    What gets too long that way ends with a digest instead.
    """
    spelled = quote("".join(f"^{letter}" if letter.isupper() else letter for letter in name), safe="^")
    if len(spelled) <= _FILE_NAME_MAX:
        return spelled
    return f"{spelled[:_FILE_NAME_MAX]}~{blake2b(name.encode(), digest_size=8).hexdigest()}"


def _json(body: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"
