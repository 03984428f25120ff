"""The command line: parses arguments, calls the command, returns its exit code.

0 good · 1 the answer is no (check: invalid; serve: it can't start) · 2 wrong use or unreadable input · 3 could not
reach the daemon, or write the output · 130/143 a second signal · 141 nobody reads the output.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from actors.delivery import State
from actors.metrics import kinds
from config.load import ConfigError, load
from config.model import Settings
from daemon import kernel_cache
from daemon.commands import bad

SERVE: Final = "daemon.commands.serve"
COMPILED: Final = frozenset(
    f"daemon.commands.{name}" for name in ("serve", "replay", "record", "backup", "audit", "apply", "export", "import_")
)
EXAMPLES: Final = """\
examples:
  detectd check detectd.yaml                       is the configuration good, and what does it mean?
  detectd serve --config detectd.yaml              run
  detectd replay --config detectd.yaml week.jsonl  which alarms would these reports have raised?
  detectd record --config detectd.yaml > log.jsonl take a part of the log home
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    # Each command's module is imported when it is wanted: `--help` needs no compiled kernels.
    module, function = options.command
    if module == SERVE:  # asked to read its configuration again, before it has read it once
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if module in COMPILED:
        kernel_cache.prepare(lambda: _data_dir(options.config))
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # for as long as we live
    try:
        command: Callable[[argparse.Namespace], int] = getattr(import_module(module), function)
        code = command(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say_no_more()
        return 128 + signal.SIGINT
    except ConfigError as problem:  # whichever command it was: the places, and that nothing was done
        print(problem, file=sys.stderr)
        return bad(problem)
    except BrokenPipeError:  # `| head` has seen enough
        _say_no_more()
        return 128 + signal.SIGPIPE
    except OSError as problem:  # what a command reaches for it answers for itself; left is where its output goes
        _say_no_more()
        print(f"detectd: {problem}", file=sys.stderr)
        return 3
    return code


def _say_no_more() -> None:
    """Python flushes at its end once more, and would complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _data_dir(config: Path) -> Path:
    """As configured; the default where that can't be read, which the command then says."""
    try:
        return load(config, kinds()).settings.data_dir
    except ConfigError:
        return Settings().data_dir


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="detectd",
        description="Self-hosted continuation of AWS IoT Device Defender Detect.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="run the daemon")
    serve.add_argument("--config", type=Path, required=True, metavar="FILE")
    serve.set_defaults(command=(SERVE, "serve"))

    check = commands.add_parser("check", help="check a configuration and say what its behaviors mean")
    check.add_argument("config", type=Path, metavar="FILE")
    check.add_argument("--json", action="store_true", help="machine-readable output")
    check.set_defaults(command=("daemon.commands.check", "check"))

    replay = commands.add_parser("replay", help="judge a file of reports; print the events, one JSON object per line")
    replay.add_argument("--config", type=Path, required=True, metavar="FILE")
    replay.add_argument("input", type=Path, metavar="INPUT", help="JSON Lines; - for standard input")
    replay.add_argument("--until", metavar="TIME", help="run the clock on to here: epoch seconds or ISO 8601")
    replay.add_argument("--what-if", action="store_true", help="judge a recording by --config, not by its own rules")
    replay.set_defaults(command=("daemon.commands.replay", "replay"))

    record = commands.add_parser("record", help="write a part of the log as JSON Lines, for `replay`")
    record.add_argument("--config", type=Path, required=True, metavar="FILE")
    record.add_argument("--first", type=int, metavar="POSITION", help="default: the first that the log has")
    record.add_argument("--last", type=int, metavar="POSITION", help="default: the last that the log has now")
    record.set_defaults(command=("daemon.commands.record", "record"))

    sources = commands.add_parser(
        "sources", help="which cloud-side metrics each broker can have, and what to switch on"
    )
    sources.add_argument("--config", type=Path, required=True, metavar="FILE")
    sources.add_argument("--json", action="store_true", help="machine-readable output")
    sources.set_defaults(command=("daemon.commands.sources", "sources"))

    _poison(commands)
    _outbox(commands)
    _audit(commands)
    _devices(commands)
    _moving(commands)
    _backup(commands)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(command=("daemon.commands.version", "version"))
    return parser


def _poison(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    poison = commands.add_parser("poison", help="log entries that were set aside because they crash an actor")
    _add_daemon(poison)
    actions = poison.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="what was set aside, and why")
    for action, text in (("retry", "judge it again, as if it came now"), ("drop", "forget it")):
        one = actions.add_parser(action, help=text)
        one.add_argument("actor")
        one.add_argument("position", type=int)
    poison.set_defaults(command=("daemon.commands.poison", "poison"))


def _outbox(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    outbox = commands.add_parser("outbox", help="notices that wait, died, or lost their receiver")
    _add_daemon(outbox)
    actions = outbox.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="newest first")
    listing.add_argument("--state", choices=[state.value for state in State], help="only these")
    listing.add_argument("--limit", type=_count, default=250, metavar="N", help="at most so many; default: 250")
    for action, text in (("resend", "try it again, under its own id"), ("drop", "never send it")):
        actions.add_parser(action, help=text).add_argument("id", type=_row)
    outbox.set_defaults(command=("daemon.commands.outbox", "outbox"))


def _audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    audit = commands.add_parser("audit", help="who changed what, newest first")
    _add_daemon(audit)
    audit.add_argument("--since", metavar="TIME", help="epoch seconds or ISO 8601")
    audit.add_argument("--limit", type=_count, default=100, metavar="N", help="at most so many; default: 100")
    audit.add_argument("--json", action="store_true", help="one JSON object per line")
    audit.set_defaults(command=("daemon.commands.audit", "audit"))


def _devices(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    devices = commands.add_parser("devices", help="the credentials of devices on the embedded broker")
    actions = devices.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="let a device in, also while the daemon runs")
    add.add_argument("name", metavar="NAME", help="its user name, or the common name of its certificate")
    password = add.add_mutually_exclusive_group()
    password.add_argument("--generate", action="store_true", help="make a password, and print it this once")
    password.add_argument("--password-file", type=Path, metavar="FILE")
    certificate = add.add_mutually_exclusive_group()
    certificate.add_argument("--certificate", type=Path, metavar="FILE", help="PEM or DER")
    certificate.add_argument("--fingerprint", metavar="HEX", help="SHA-256 of its certificate")
    listing = actions.add_parser("list", help="who may come in, and by what")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    revoke = actions.add_parser("revoke", help="let it in no more, and end its connection")
    revoke.add_argument("name", metavar="NAME")
    for one in (add, listing, revoke):
        one.add_argument("--config", type=Path, required=True, metavar="FILE")
    devices.set_defaults(command=("daemon.commands.devices", "devices"))


def _moving(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Definitions in and out."""
    importing = commands.add_parser("import", help="definitions from AWS or CloudFormation, as files that pass `check`")
    sources = importing.add_subparsers(metavar="SOURCE", required=True)
    aws = sources.add_parser("aws", help="what an account has (any endpoint that speaks AWS IoT's API)")
    aws.add_argument("--region", required=True)
    aws.add_argument("--endpoint-url", metavar="URL")
    aws.add_argument("--profile", help="of AWS's configuration files")
    _add_out(aws)
    _add_sifting(aws)
    aws.set_defaults(command=("daemon.commands.import_", "from_aws"))
    template = sources.add_parser("cloudformation", help="a template, YAML or JSON, as CDK writes it too")
    template.add_argument("file", type=Path, metavar="FILE")
    template.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", type=_pair)
    template.add_argument("--region", help="what AWS::Region stands for")
    template.add_argument("--account", help="what AWS::AccountId stands for")
    _add_out(template)
    _add_sifting(template)
    template.set_defaults(command=("daemon.commands.import_", "from_cloudformation"))

    export = commands.add_parser("export", help="what the API of a running daemon made, as files")
    _add_daemon(export)
    export.add_argument("--endpoint-url", metavar="URL", help="default: where the configuration listens")
    _add_out(export)
    export.set_defaults(command=("daemon.commands.export", "export"))

    apply = commands.add_parser("apply", help="make the API of a running daemon have what files say")
    _add_daemon(apply)
    apply.add_argument("directory", type=Path, metavar="DIR", help="a folder as `export` and `import` write it")
    apply.add_argument("--endpoint-url", metavar="URL", help="default: where the configuration listens")
    apply.add_argument("--dry-run", action="store_true", help="say what would be done")
    apply.add_argument("--check", action="store_true", help="likewise, and exit 1 where there is something")
    goes = "what the files don't have goes, or stays"
    apply.add_argument("--delete", action=argparse.BooleanOptionalAction, default=True, help=goes)
    apply.set_defaults(command=("daemon.commands.apply", "apply"))


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where the files go")
    parser.add_argument("--force", action="store_true", help="write over files that are there")


def _add_sifting(parser: argparse.ArgumentParser) -> None:
    """For a command that reads what others made, and may not have been made for detectd."""
    parser.add_argument("--strict", action="store_true", help="write nothing where something must be left out")
    parser.add_argument("--durations", choices=("aws", "any"), default="aws", help="which durationSeconds are good")


def _pair(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return text


def _add_daemon(parser: argparse.ArgumentParser) -> None:
    """For a command that asks the running daemon."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--key", metavar="ID", help="the access key to sign with; default: the first whose role suffices"
    )


def _row(text: str) -> int:
    row = int(text)
    if not 0 <= row < 2**63:
        raise argparse.ArgumentTypeError("must be the number of a row")
    return row


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return count


def _backup(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    backup = commands.add_parser("backup", help="copy store, checkpoints and log to DIR, also while the daemon runs")
    backup.add_argument("--config", type=Path, required=True, metavar="FILE")
    backup.add_argument("directory", type=Path, metavar="DIR")
    backup.set_defaults(command=("daemon.commands.backup", "backup"))
    restore = commands.add_parser(
        "restore", help="make an empty data directory from a backup; the daemon must be stopped"
    )
    restore.add_argument("--config", type=Path, required=True, metavar="FILE")
    restore.add_argument("directory", type=Path, metavar="DIR")
    restore.set_defaults(command=("daemon.commands.backup", "restore"))


if __name__ == "__main__":
    sys.exit(main())
