"""Files to `Settings`, or to every problem in them: the main file, and the profiles, metrics and things it names.

First the shape of all files, then the rules across them (`check`); what is wrong in an included file is said of that
file. Relative paths start at the main file's folder. What comes back is in one canonical order (`canonical`).
"""

import glob
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from config.canonical import canonical
from config.check import check
from config.document import Document, parse, read
from config.kinds import Kinds
from config.model import (
    Account,
    AwsOut,
    Broker,
    Checkpoint,
    Client,
    CustomMetric,
    Daemon,
    Dimension,
    Embedded,
    Fleet,
    Http,
    Limits,
    Log,
    Logging,
    Receivers,
    Rules,
    SecurityProfile,
    Settings,
)
from config.problem import ConfigError, Finding, KeyPath, Place, Problem, UnreadableError, problem
from config.shape import shaped

__all__ = ["ConfigError", "Loaded", "Problem", "UnreadableError", "load", "load_text"]

T = TypeVar("T")
FILES_MAX: Final = 10_000
"""Files that all globs together may bring in."""

_COLLECTIONS: Final[Mapping[str, frozenset[str]]] = {
    "profiles": frozenset({"profiles", "securityProfiles"}),
    "custom_metrics": frozenset({"custom_metrics", "customMetrics"}),
    "dimensions": frozenset({"dimensions"}),
    "fleet": frozenset({"fleet"}),
}
"""The member that a file may keep its objects in."""


@dataclass(frozen=True, slots=True)
class Loaded:
    settings: Settings
    warnings: tuple[Problem, ...]
    folders: tuple[Path, ...]
    """Where a new file can match a glob: to be watched, beside `settings.sources`."""


def load(path: Path, kinds: Kinds) -> Loaded:
    """The configuration in a file and those that it names.

    Raises:
        UnreadableError: (a ConfigError) the main file can't be read.
        ConfigError: with every problem of shape, or, where there is none, every problem between settings.
    """
    # Absolute but not resolved: the folder may be a symlink that is swapped while we run.
    return _load(read(path.absolute()), kinds)


def load_text(text: str, *, file: Path | str, kinds: Kinds) -> Loaded:
    """As `load`, of a text that would be in `file`."""
    return _load(parse(text, Path(file).absolute()), kinds)


class Main(Daemon, frozen=True):
    """The main file. The members that may name other files are looked at on their own."""

    data_dir: Path | None = None
    account: Account = Account()
    http: Http = Http()
    broker: Broker = Broker()
    log: Log = Log()
    receivers: Receivers = Receivers()
    aws: AwsOut = AwsOut()
    logging: Logging = Logging()
    checkpoint: Checkpoint = Checkpoint()
    limits: Limits = Limits()
    clients: tuple[Client, ...] = ()
    profiles: Any = None
    custom_metrics: Any = None
    dimensions: Any = None
    fleet: Any = None


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a collection: where it is written, and the number of its first object in the whole."""

    document: Document
    path: KeyPath
    data: Any
    is_list: bool
    first: int


@dataclass(slots=True)
class Reading:
    """One load under way: what has been read so far, and what has been found."""

    main: Document
    documents: dict[Path, Document | None] = field(default_factory=dict)  # None: it could not be read
    folders: set[Path] = field(default_factory=set)
    parts: dict[str, list[Part]] = field(default_factory=dict)
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.main.file.parent

    def path_of(self, text: str) -> Path:
        return self.folder / text


def _load(document: Document, kinds: Kinds) -> Loaded:
    reading = Reading(document)
    data = document.data
    if data is None:  # as a file is for a moment that an editor writes over, or for good on a full disk
        raise ConfigError([problem(document.place(()), "is empty; all defaults, and nothing watched, are written {}")])
    main = _shape(reading, document, (), data, Main) or Main()
    given = data if isinstance(data, dict) else {}  # whatever else is wrong in the file, its objects are looked at
    rules = Rules(
        profiles=_objects(reading, "profiles", given.get("profiles"), SecurityProfile),
        custom_metrics=_objects(reading, "custom_metrics", given.get("custom_metrics"), CustomMetric),
        dimensions=_objects(reading, "dimensions", given.get("dimensions"), Dimension),
        fleet=_fleet(reading, given.get("fleet")),
        limits=main.limits,
        clients=main.clients,
    )
    _give_up_on(reading.errors)
    settings = _settings(reading, main, rules)
    errors, warnings = check(settings, kinds, lambda finding: _place(reading, finding))
    _give_up_on(errors)
    settings = msgspec.structs.replace(settings, rules=canonical(rules))
    return Loaded(settings, (*reading.warnings, *warnings), tuple(sorted(reading.folders)))


def _settings(reading: Reading, main: Main, rules: Rules) -> Settings:
    broker = main.broker
    if broker.embedded is None and broker.nats is None:
        broker = msgspec.structs.replace(broker, embedded=Embedded())
    return Settings(
        data_dir=main.data_dir or reading.folder / Settings().data_dir,
        account=main.account,
        http=main.http,
        broker=broker,
        log=main.log,
        receivers=main.receivers,
        aws=main.aws,
        logging=main.logging,
        checkpoint=main.checkpoint,
        rules=rules,
        sources=_sources(reading, main),
        origin=dict(_origins(reading, rules)),
    )


def _sources(reading: Reading, main: Main) -> tuple[Path, ...]:
    """Every file whose content counts: the secrets' as well, since a new secret is a reason to reload."""
    secrets = [
        *(key.secret_file for key in main.http.access_keys),
        *(webhook.secret_file for webhook in main.receivers.webhooks),
        *(bridge.password_file for bridge in main.broker.bridges),
        *((main.broker.nats.credentials_file, main.broker.nats.system_credentials_file) if main.broker.nats else ()),
    ]
    return (reading.main.file, *sorted({*reading.documents, *filter(None, secrets)}))


def _origins(reading: Reading, rules: Rules) -> Iterator[tuple[str, str]]:
    """Which file defines an object, for those who would change it elsewhere."""
    named = {
        "profiles": ("profile", [each.security_profile_name for each in rules.profiles]),
        "custom_metrics": ("custom-metric", [each.metric_name for each in rules.custom_metrics]),
        "dimensions": ("dimension", [each.name for each in rules.dimensions]),
    }
    for collection, (kind, names) in named.items():
        for at, name in enumerate(names):
            yield f"{kind}/{name}", str(_part(reading, collection, at).document.file)
    for name in rules.fleet.groups:
        yield f"group/{name}", str(_part(reading, f"groups/{name}", 0).document.file)
    if rules.fleet.things:  # one word for all: there may be a million
        yield "things", ", ".join(sorted(_files_with_things(reading.parts["things"], len(rules.fleet.things))))


def _files_with_things(parts: list[Part], count: int) -> set[str]:
    ends = [*(part.first for part in parts[1:]), count]
    return {str(part.document.file) for part, end in zip(parts, ends, strict=True) if end > part.first}


# Objects, inline or in files


def _objects(reading: Reading, collection: str, given: Any, wanted: type[T]) -> tuple[T, ...]:
    """All objects of a collection in order; those of a part that does not fit are left out, and said."""
    found: list[T] = []
    for document, path, data in _pieces(reading, collection, given):
        is_list = isinstance(data, list)
        reading.parts.setdefault(collection, []).append(Part(document, path, data, is_list, len(found)))
        if is_list:
            found.extend(_shape(reading, document, path, data, tuple[wanted, ...]) or ())  # type: ignore[valid-type]
        else:
            found.extend(filter(None, [_shape(reading, document, path, data, wanted)]))
    return tuple(found)


def _fleet(reading: Reading, given: Any) -> Fleet:
    """The union of all parts; a group is defined in one of them."""
    things: list[str] = []
    groups: dict[str, Any] = {}
    for document, path, data in _pieces(reading, "fleet", given):
        part = _shape(reading, document, path, data, Fleet)
        if part is None:
            continue
        reading.parts.setdefault("things", []).append(Part(document, (*path, "things"), None, True, len(things)))
        things.extend(part.things)
        for name, group in part.groups.items():
            if name in groups:
                place = document.place((*path, "groups", name), key=True)
                reading.errors.append(problem(place, f'group "{name}" is defined a second time'))
            groups[name] = group
            reading.parts[f"groups/{name}"] = [Part(document, (*path, "groups", name), None, False, 0)]
    return Fleet(tuple(things), groups)


def _pieces(reading: Reading, collection: str, given: Any) -> Iterator[tuple[Document, KeyPath, Any]]:
    """Where the objects of a collection are written: inline, or in the files that it names."""
    items = [] if given is None else given if isinstance(given, list) else [given]
    for at, item in enumerate(items):
        path: KeyPath = (collection, at) if isinstance(given, list) else (collection,)
        if not isinstance(item, str):
            yield reading.main, path, item
            continue
        for document in _included(reading, item, reading.main.place(path)):
            yield from _contents(reading, document, collection)


def _contents(reading: Reading, document: Document, collection: str) -> Iterator[tuple[Document, KeyPath, Any]]:
    """An included file: one object, a list of them, or a list in the one member that is named for it."""
    data = document.data
    if data is None:
        reading.warnings.append(problem(document.place(()), "the file holds nothing"))
    elif isinstance(data, dict) and len(data) == 1 and data.keys() <= _COLLECTIONS[collection]:
        (member,) = data
        if data[member] is not None:
            yield document, (member,), data[member]
    else:
        yield document, (), data


def _included(reading: Reading, pattern: str, place: Place) -> list[Document]:
    """The documents that a file's name or a glob stands for, those that were read before left out."""
    fresh = [file for file in _matches(reading, pattern, place) if file not in reading.documents]
    if len(reading.documents) + len(fresh) > FILES_MAX:
        reading.errors.append(problem(place, f"more than {FILES_MAX} files are included"))
        return []
    reading.documents.update((file, _read(reading, file)) for file in fresh)
    return [document for file in fresh if (document := reading.documents[file]) is not None]


def _read(reading: Reading, file: Path) -> Document | None:
    try:
        return read(file)
    except ConfigError as error:
        reading.errors.extend(error.problems)
        return None


def _matches(reading: Reading, pattern: str, place: Place) -> list[Path]:
    named = reading.folder / pattern
    if named.is_file() or not glob.has_magic(pattern):
        if not named.is_file():
            reading.errors.append(problem(place, f"there is no file {named}"))
            return []
        return [named]
    # Not Path.glob: that takes no absolute pattern, and looks into hidden folders (Kubernetes keeps copies in ..data).
    matches = glob.iglob(pattern, root_dir=reading.folder, recursive=True)  # noqa: PTH207
    found = sorted(reading.folder / each for each in matches)
    reading.folders.add(_fixed_folder(named))
    reading.folders.update(each.parent for each in found)
    files = [each for each in found if each.is_file()]
    if not files:
        reading.warnings.append(problem(place, f"no file matches {named}"))
    return files


def _fixed_folder(pattern: Path) -> Path:
    """The deepest folder of a glob that is no pattern itself."""
    parents = [parent for parent in pattern.parents if not glob.has_magic(str(parent))]
    return parents[0]


# Shapes and places


def _shape(reading: Reading, document: Document, path: KeyPath, data: Any, wanted: type[T]) -> T | None:
    value, faults = shaped(data, wanted, reading.path_of)
    for fault in faults:
        place = document.place((*path, *fault.path), key=fault.at_key)
        reading.errors.append(problem(place, fault.message))
    return value


def _place(reading: Reading, finding: Finding) -> Place:
    """Where what a check found is written: in the main file, or in the part that the object came from."""
    match finding.path:
        case ("profiles" | "custom_metrics" | "dimensions" as collection, int(at), *rest):
            return _place_in(_part(reading, str(collection), at), at, rest, finding)
        case ("fleet", "things", int(at), *rest):
            return _place_in(_part(reading, "things", at), at, rest, finding)
        case ("fleet", "groups", str(name), *rest):
            return _place_in(_part(reading, f"groups/{name}", 0), 0, rest, finding)
    return reading.main.place(finding.path, key=finding.at_key)


def _place_in(part: Part, at: int, rest: list[str | int], finding: Finding) -> Place:
    index = (at - part.first,) if part.is_list else ()
    return part.document.place((*part.path, *index, *rest), key=finding.at_key)


def _part(reading: Reading, collection: str, at: int) -> Part:
    """The part that object number `at` of a collection is in. An empty part is never the last to begin there."""
    parts = reading.parts[collection]
    return parts[bisect_right(parts, at, key=lambda part: part.first) - 1]


def _give_up_on(errors: list[Problem]) -> None:
    if errors:
        raise ConfigError(sorted(errors, key=lambda each: (str(each.file), each.line, each.column)))
