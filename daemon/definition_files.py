"""Definition files: how rules are laid out in a folder, under which names, and how they get there.

    DIR/detectd.yaml             names the rest; `detectd check` and `serve` take it
    DIR/profiles/NAME.json       one object a file; likewise custom_metrics/ and dimensions/
    DIR/fleet.yaml

A name may hold `:` and differ from another only by case; file systems elsewhere allow neither.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from config.model import Account, Rules
from config.tree import scalar

Form = Literal["json", "yaml"]
MAIN: Final = "detectd.yaml"
FLEET: Final = "fleet.yaml"
FOLDERS: Final = {"profiles": "security_profile_name", "custom_metrics": "metric_name", "dimensions": "name"}
SUFFIXES: Final = frozenset({".json", ".yaml", ".yml"})

_FILE_NAME_MAX: Final = 120
_RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?![a-z0-9_])", re.IGNORECASE)  # on Windows
_WORD: Final = re.compile(r"[A-Za-z_$/][\w$/.-]*(?::[\w$/.-]+)*", re.ASCII)
_UNPRINTABLE: Final = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


class InTheWay(Exception):
    """Files are there already; `files` are their paths."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        super().__init__(", ".join(map(str, self.files)))


# What is in the files


def laid_out(rules: Rules, account: Account | None, form: Form) -> dict[Path, str]:
    """Relative path -> content; the main file is the last."""
    files: dict[Path, str] = {}
    main: dict[str, Any] = {}
    if account is not None:
        main["account"] = msgspec.to_builtins(account)
    for folder, member in FOLDERS.items():
        objects = {getattr(each, member): each for each in getattr(rules, folder)}
        names = file_names(objects)
        files |= {Path(folder, f"{names[name]}.{form}"): _written(each, form) for name, each in objects.items()}
        if objects:
            main[folder] = [f"{folder}/*.{form}"]
    if rules.fleet.things or rules.fleet.groups:
        files[Path(FLEET)] = as_yaml(_fleet(rules))
        main["fleet"] = FLEET
    if rules.limits.durations != "aws":
        main["limits"] = {"durations": rules.limits.durations}
    return {**files, Path(MAIN): as_yaml(main)}


def _written(each: msgspec.Struct, form: Form) -> str:
    body = msgspec.to_builtins(each)
    return as_yaml(body) if form == "yaml" else json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def _fleet(rules: Rules) -> dict[str, Any]:
    groups = {
        name: {
            **({"parent": group.parent} if group.parent is not None else {}),
            **({"things": list(group.things)} if group.things else {}),
        }
        for name, group in rules.fleet.groups.items()
    }
    things = {"things": list(rules.fleet.things)} if rules.fleet.things else {}
    return {**things, **({"groups": groups} if groups else {})}


# Names of files


def file_names(names: Iterable[str]) -> dict[str, str]:
    """A file name, without suffix, for each: the name itself where every file system can tell it from the others."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names):
        safe = _safe(name)
        if len(safe) > _FILE_NAME_MAX or safe.lower() in taken:
            safe = f"{safe[:_FILE_NAME_MAX]}~{blake2b(name.encode(), digest_size=6).hexdigest()}"
        found[name] = safe
        taken.add(safe.lower())
    return found


def _safe(name: str) -> str:
    safe = name.replace(":", "%3A")
    return f"%{ord(safe[0]):02X}{safe[1:]}" if _RESERVED.match(safe) or safe[0] == "-" else safe


# YAML


def as_yaml(value: Mapping[str, Any]) -> str:
    """Block YAML of plain values. A dumper made for everything would take a minute for a fleet of 100 000 things."""
    return "\n".join(_lines(value, "")) + "\n" if value else "{}\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _entry(f"{indent}{_text(key)}:", each, indent + "  ")
    else:
        for each in value:
            if isinstance(each, Mapping | list | tuple) and each:
                first, *rest = _lines(each, indent + "  ")
                yield f"{indent}- {first.lstrip(' ')}"
                yield from rest
            else:
                yield f"{indent}- {_leaf(each)}"


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping | list | tuple) and value:
        yield head
        yield from _lines(value, indent)
    else:
        yield f"{head} {_leaf(value)}"


def _leaf(value: Any) -> str:
    match value:
        case str():
            return _text(value)
        case Mapping():
            return "{}"
        case list() | tuple():
            return "[]"
        case _:
            return json.dumps(value)


def _text(text: str) -> str:
    """Unquoted where it is surely read as that text."""
    if _WORD.fullmatch(text) and len(text) < 200 and scalar(text) == text:
        return text
    return _UNPRINTABLE.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


# Getting them there


def write(files: Mapping[Path, str], folder: Path, *, force: bool) -> None:
    """Write files into a folder, each as a whole, in their order. `force`: over what is there.

    Raises:
        InTheWay: there is something of one of these names, and nothing was written.
        OSError: the folder, or one of the files, can't be written; some may have been.
    """
    there = [folder / path for path in files if (folder / path).exists()]
    if there and not force:
        raise InTheWay(there)
    for path, content in files.items():
        _write(folder / path, content)


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def others(files: Iterable[Path], folder: Path) -> list[Path]:
    """Definition files of the layout that are in the folder and not among `files`: they would be read too."""
    mine = {folder / path for path in files}
    found = (each for name in FOLDERS for each in (folder / name).glob("*"))
    return sorted(each for each in found if each.suffix in SUFFIXES and each not in mine and each.name[0] != ".")
