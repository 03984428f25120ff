"""The demo on a terminal: fleet, active alarms, last deliveries, rates, drawn anew a few times a second."""

import asyncio
import time
from collections.abc import Iterator
from typing import Final

from board import Board
from lines import clock, shortened
from receiver import Delivery
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

FRAME_S: Final = 0.25
WIDE: Final = 100
_COLORS: Final = {"in-alarm": "bold red", "alarm-cleared": "green", "alarm-invalidated": "yellow"}


async def keep_drawing(board: Board, console: Console) -> None:
    """Until cancelled. The alternate screen: the terminal looks afterwards as it did before."""
    with Live(_frame(board), console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_frame(board), refresh=True)
            await asyncio.sleep(FRAME_S)


def _frame(board: Board) -> Layout:
    layout = Layout()
    layout.split_column(
        Layout(_title(board), size=1),
        Layout(_rates(board), size=1),
        Layout(Panel(Fleet(board), title="fleet", title_align="left"), size=len(board.groups) + 2),
        Layout(_panel(Alarms(board), f"active alarms: {len(board.alarms)}")),
        Layout(_panel(Deliveries(board), _deliveries_title(board)), ratio=2),
        Layout(_footer(board), size=1),
    )
    return layout


def _panel(content: RenderableType, title: str) -> Panel:
    return Panel(content, title=title, title_align="left")


def _title(board: Board) -> Text:
    up_s = round(time.time() - board.started_s)
    mqtt = f"mqtt {board.fleet.broker.host}:{board.fleet.broker.port}"
    text = Text.assemble(
        ("detectd demo", "bold"), f"  {board.url}/-/status  {mqtt}  up {up_s // 60:02d}:{up_s % 60:02d}"
    )
    return _one_line(text)


def _rates(board: Board) -> Text:
    numbers, counts = board.numbers, board.fleet.counts
    parts = [
        f"{board.accepted_per_s:.1f} reports/s",
        f"{numbers.get('detectd_reports_accepted_total', 0):.0f} accepted",
        f"{numbers.get('detectd_reports_rejected_total', 0):.0f} rejected",
        f"log at {numbers.get('detectd_log_position', 0):.0f}",
        *_latency(numbers),
        f"{counts['accepted'] + counts['rejected']} answers heard",
    ]
    return _one_line(Text(" · ".join(parts), "cyan"))


def _latency(numbers: dict[str, float]) -> Iterator[str]:
    count = numbers.get("detectd_report_latency_seconds_count", 0)
    if count:
        yield f"stored after {1000 * numbers['detectd_report_latency_seconds_sum'] / count:.1f} ms"


def _deliveries_title(board: Board) -> str:
    forged = f", {board.receiver.forged} not verified" if board.receiver.forged else ""
    return f"webhooks: {board.raised} raised, {board.ended} ended, all signatures verified{forged}"


def _footer(board: Board) -> Text:
    last = board.notes[-1] if board.notes else "all is well"
    return _one_line(Text.assemble((last, "yellow"), ("   Ctrl-C ends it", "dim")))


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


class Fleet:
    """A line per group, a cell per thing: `·07` well, `?07` not connected, `!07` wrong, `▲07` in alarm."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        alarmed = self._board.alarmed()
        width = max(map(len, self._board.groups))
        for group, things in self._board.groups.items():
            line = Text(f"{group:{width}} ")
            for thing in things:
                mark, style = self._mark(thing, alarmed)
                line.append(f" {mark}{thing.rpartition('-')[2]}", style)
            yield _one_line(line)

    def _mark(self, thing: str, alarmed: set[str]) -> tuple[str, str]:
        if thing in alarmed:
            return "▲", "bold red"
        if thing in self._board.fleet.ill:
            return "!", "yellow"
        if thing not in self._board.fleet.connected:
            return "?", "dim"
        return "·", "green"


class Alarms:
    """As many of the alarms that are open as fit, the newest first; the last line says how many more there are."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        alarms = sorted(self._board.alarms.values(), key=lambda alarm: -alarm.received_s)
        room = options.height or options.max_height
        shown = alarms if len(alarms) <= room else alarms[: room - 1]
        table = _table()
        for alarm in shown:
            table.add_row(clock(alarm.received_s), alarm.thing, *_what(alarm, options), style="red")
        if len(shown) < len(alarms):
            table.add_row("", f"… {len(alarms) - len(shown)} more")
        yield table


class Deliveries:
    """The last webhooks, the newest first, as many as fit."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = _table(types=True)
        for delivery in list(self._board.deliveries)[: options.height or options.max_height]:
            kind = Text(delivery.type, _COLORS.get(delivery.type, ""))
            table.add_row(clock(delivery.received_s), kind, delivery.thing, *_what(delivery, options))
        yield table


def _table(*, types: bool = False) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, width=8)
    if types:
        table.add_column(no_wrap=True, width=17)
    table.add_column(no_wrap=True, width=10)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def _what(delivery: Delivery, options: ConsoleOptions) -> tuple[str, str]:
    value = "" if delivery.value is None else shortened(delivery.value)
    is_wide = options.max_width >= WIDE
    return f"{delivery.profile}/{delivery.behavior}" if is_wide else delivery.behavior, value
