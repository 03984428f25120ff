"""The AWS API: pages of a million violation events against an empty answer, and what its load costs the reports."""

import asyncio
import http.client
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import machine
import serving
import settings
import throughput
import uvloop
from log_server import LogServer

from daemon.store.schema import migrate

THINGS: Final = 10_000
PROFILES: Final = 20
COST_ROUNDS: Final = 9  # one differs from the next by as much as what is looked for
REQUESTS: Final = 200
API_RATE: Final = 200
CONNECTIONS: Final = 10
TARGET_PAGE: Final = 5.0
TARGET_COST: Final = 0.15
END_S: Final = 1_767_000_000
SPAN_S: Final = 30 * 86_400
FILTERS: Final = {
    "no filter": "",
    "one thing": "&thingName=t000007",
    "a profile, suppressed": "&securityProfileName=p3&listSuppressedAlerts=true",
    "rarely verified": "&verificationState=TRUE_POSITIVE",
    "learned, of a profile": "&behaviorCriteriaType=MACHINE_LEARNING&securityProfileName=p3",
    "nothing passes": "&securityProfileName=p3&verificationState=BENIGN_POSITIVE&listSuppressedAlerts=true",
    "nothing passes, walked": "&behaviorCriteriaType=STATIC&verificationState=UNKNOWN&securityProfileName=none",
}


def main(events: int, rounds: int, reports: int, cost_rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="detectd-bench-", ignore_cleanup_errors=True) as folder:
        pages(Path(folder), events, rounds)
    with tempfile.TemporaryDirectory(prefix="detectd-bench-", ignore_cleanup_errors=True) as folder:
        uvloop.run(cost(Path(folder), reports, cost_rounds))


# ---- pages ----


def pages(folder: Path, events: int, rounds: int) -> None:
    config = settings.write(folder, broker={"embedded": {"mqtt": f"127.0.0.1:{settings.free_port()}"}})
    fill(folder / "data", events)
    daemon = serving.Serving(config)
    daemon.start()
    try:
        ask = client(daemon.url)
        empty = machine.median(timed(ask, "/violation-events?startTime=0&endTime=1") for _ in range(rounds))
        machine.note(
            f"{events:,} events of {THINGS:,} things, pages of 250, {REQUESTS} requests each, medians of {rounds}"
        )
        machine.line("an empty answer", f"{1e3 * empty:.2f} ms")
        for name, query in FILTERS.items():
            path = f"/violation-events?startTime={END_S - SPAN_S}&endTime={END_S}&maxResults=250{query}"
            took = machine.median(timed(ask, path) for _ in range(rounds))
            ratio = took / empty
            machine.line(name, f"{1e3 * took:.2f} ms", f"× {ratio:.1f}", f"≤ {TARGET_PAGE:g}", met=ratio <= TARGET_PAGE)
    finally:
        daemon.stop()


def timed(ask: Callable[[str], None], path: str) -> float:
    """Seconds of one request, the median of many."""
    found = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        ask(path)
        found.append(time.perf_counter() - began)
    return machine.median(found)


def client(url: str) -> Callable[[str], None]:
    """One kept connection."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)

    def ask(path: str) -> None:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {body[:300]!r}")

    return ask


def fill(data: Path, events: int) -> None:
    """A store with that many events, one in a thousand verified, one in twenty suppressed, one in fifty learned."""
    data.mkdir(parents=True)
    chance = random.Random(7)
    with closing(sqlite3.connect(data / "detectd.sqlite", isolation_level=None)) as con:
        con.execute("PRAGMA journal_mode = WAL")
        migrate(con)
        con.execute("BEGIN")
        rows = [made(number, events, chance) for number in range(events)]
        con.executemany(
            "INSERT INTO violations (violation_id, profile, thing, registered, behavior_name, behavior, criteria_type, "
            "suppressed, start_ns, last_violation_ns, end_ns, verification_state) "
            "VALUES (?,?,?,1,'b','{}',?,?,?,?,?,?)",
            [(v, p, t, c, s, ns, ns, ns + 1, state) for v, p, t, c, s, ns, state, _ in rows],
        )
        con.executemany(
            "INSERT INTO events (event_id, violation_id, event_type, profile, thing, criteria_type, suppressed, "
            "time_ns, position, reason, message, verification_state) VALUES (?,?,'in-alarm',?,?,?,?,?,1,'',?,?)",
            [(f"{v}-in-alarm", v, p, t, c, s, ns, m, state) for v, p, t, c, s, ns, state, m in rows],
        )
        con.execute("COMMIT")


def made(number: int, events: int, chance: random.Random) -> tuple[str, str, str, str, bool, int, str, str]:
    profile, thing = f"p{chance.randrange(PROFILES)}", f"t{chance.randrange(THINGS):06}"
    learned, suppressed = chance.random() < 0.02, chance.random() < 0.05
    state = "TRUE_POSITIVE" if chance.random() < 0.001 else "UNKNOWN"
    ns = (END_S - SPAN_S + SPAN_S * number // events) * 10**9
    criteria = {"comparisonOperator": "less-than-equals", "value": {"count": 40}, "durationSeconds": 300}
    message = json.dumps(
        {
            "violationEventTime": ns // 10**6,
            "thingName": thing,
            "behavior": {"name": "b", "metric": "aws:all-bytes-out", "criteria": criteria},
            "violationEventType": "in-alarm",
            "metricValue": {"count": 97},
            "violationId": f"{number:032x}",
            "securityProfileName": profile,
        }
    )
    kind = "MACHINE_LEARNING" if learned else "STATIC"
    return f"{number:032x}", profile, thing, kind, suppressed, ns, state, message


# ---- what it costs the reports ----


async def cost(folder: Path, reports: int, rounds: int) -> None:
    server = LogServer(folder)
    try:
        await server.start()
        config = await throughput.prepared(server, folder)
        await throughput.filled(server, reports)
        last = (await server.ask("STREAM.INFO.LOG"))["state"]["last_seq"]
        listen = json.loads(config.read_text())["http"]["listen"]
        plain, alone, loaded, rates = [], [], [], []
        for number in range(rounds):  # in turn, so that a busy neighbour hits all
            plain.append(throughput.judged(config, folder / f"plain-{number}", last, replies=False).wall_s)
            with still() as elsewhere, load(elsewhere):
                alone.append(throughput.judged(config, folder / f"alone-{number}", last, replies=False).wall_s)
            with load(listen) as rate:
                loaded.append(throughput.judged(config, folder / f"loaded-{number}", last, replies=False).wall_s)
            rates.append(rate())
        machine.note(f"{reports:,} reports from the log, {machine.median(rates):,.0f} requests/s, medians of {rounds}")
        machine.note("requests come from this machine too: those to a server that does nothing are the measure")
        machine.line("reports/s without requests", f"{reports / machine.median(plain):,.0f}/s")
        generator = machine.median(b / a - 1 for a, b in zip(plain, alone, strict=True))
        machine.line(
            "longer with requests to another server",
            f"{reports / machine.median(alone):,.0f}/s",
            f"{100 * generator:.0f} %",
        )
        both = machine.median(b / a - 1 for a, b in zip(plain, loaded, strict=True))
        share = machine.median(b / a - 1 for a, b in zip(alone, loaded, strict=True))
        machine.line(
            "longer with requests to the API", f"{reports / machine.median(loaded):,.0f}/s", f"{100 * both:.0f} %"
        )
        machine.line(
            "of that the API's own", "", f"{100 * share:.0f} %", f"< {100 * TARGET_COST:.0f} %", met=share < TARGET_COST
        )
    finally:
        server.stop()


@contextmanager
def still() -> Iterator[str]:
    """A server that answers everything with the same 2 kB, in a process of its own."""
    listen = f"127.0.0.1:{settings.free_port()}"
    child = subprocess.Popen([sys.executable, __file__, "--still", listen])
    try:
        yield listen
    finally:
        child.terminate()
        child.wait()


class Still(asyncio.Protocol):
    """One connection of it; a request is one piece, as `http.client` sends it."""

    ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b" " * 2000

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        self._transport.write(self.ANSWER)  # type: ignore[attr-defined]


async def be_still(listen: str) -> None:
    host, _, port = listen.rpartition(":")
    server = await asyncio.get_running_loop().create_server(Still, host, int(port))
    await server.serve_forever()


@contextmanager
def load(listen: str) -> Iterator[Callable[[], float]]:
    """`API_RATE` requests a second from a process of their own, as soon as and as long as somebody listens.

    Gives what tells how many a second were answered.
    """
    child = subprocess.Popen([sys.executable, __file__, "--load", listen], stdout=subprocess.PIPE, text=True)
    told = [0.0]

    def hear() -> None:
        assert child.stdout is not None
        for text in child.stdout:
            told[0] = float(text)

    reader = threading.Thread(target=hear)
    reader.start()
    try:
        yield lambda: told[0]
    finally:
        child.terminate()
        child.wait()
        reader.join()


def fire(listen: str) -> None:
    """Until it is ended: requests at the rate, and how many a second were answered so far, a line each tenth of one.

    Over several connections: a busy daemon may take longer over one answer than the time to the next request.
    """
    counts = [0] * CONNECTIONS
    for number in range(CONNECTIONS):
        threading.Thread(target=fire_one, args=(listen, number, counts), daemon=True).start()
    while not any(counts):
        time.sleep(0.01)
    began, before = time.perf_counter(), sum(counts)
    seen = before
    while True:
        time.sleep(0.1)
        if seen != sum(counts):  # a daemon that has ended answers none, and is not to be reckoned with
            seen = sum(counts)
            print((seen - before) / (time.perf_counter() - began), flush=True)


def fire_one(listen: str, number: int, counts: list[int]) -> None:
    """One connection's share of the rate."""
    until = int(time.time()) + 9
    paths = (
        f"/violation-events?startTime=0&endTime={until}&maxResults=25",
        "/active-violations?maxResults=25",
        "/things?maxResults=50",
        "/security-profiles",
        f"/metric-values?thingName=thing-1&metricName=aws:all-bytes-out&startTime=0&endTime={until}",
    )
    ask, due, turn = client(f"http://{listen}"), time.perf_counter() + number / API_RATE, number
    while True:
        due += CONNECTIONS / API_RATE
        time.sleep(max(0.0, due - time.perf_counter()))
        try:
            ask(paths[turn % len(paths)])
            counts[number] += 1
        except (OSError, http.client.HTTPException, SystemExit):  # not there yet, or no more
            ask, due = client(f"http://{listen}"), time.perf_counter()
        turn += 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        fire(sys.argv[2])
    elif sys.argv[1:2] == ["--still"]:
        uvloop.run(be_still(sys.argv[2]))
    elif machine.is_quick():
        main(20_000, 1, 20_000, 1)
    else:
        main(1_000_000, 3, 400_000, COST_ROUNDS)
