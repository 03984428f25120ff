"""SNS on loopback: signed as botocore signs, each profile to its topic, and nobody waits for another."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from transitions import START_NS, behavior, cleared, invalidated, raised

from actors.delivery import Reason, Retry, State
from actors.notice import Notice, message
from config.model import AlertTarget, AwsOut, MetricValue, Receivers, Rules, SecurityProfile, Topic, Webhook
from daemon.clock import VirtualClock
from daemon.delivery.dispatch import Crashed, Died, Dispatch, Failed, News, Sent
from daemon.notifiers import client_session
from daemon.notifiers._aws import AGAIN_S, KEPT_S, Chain, NoCredentials
from daemon.notifiers._base import Delivered, Tools
from daemon.notifiers.sns import SnsNotifier
from daemon.store.store import Store

ARN = "arn:aws:sns:eu-west-1:123456789012:"
ALARMS, OTHERS = ARN + "alarms", ARN + "others"
KEYS = ReadOnlyCredentials("AKIDEXAMPLE", "sekret+/key", None)
PUBLISHED = "<PublishResponse><PublishResult><MessageId>0b1d</MessageId></PublishResult></PublishResponse>"


def error(status: int, code: str) -> tuple[int, str]:
    return status, f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>"


class Sns:
    """Takes Publish requests, and answers as told; webhooks too, at /hook."""

    def __init__(self) -> None:
        self.answer: Callable[[str, dict[str, Any]], tuple[int, str]] = lambda _arn, _message: (200, PUBLISHED)
        self.gate = asyncio.Event()
        self.gate.set()
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.got: list[tuple[str, dict[str, Any]]] = []  # (topic, message), as they came
        self.hooks: list[dict[str, Any]] = []
        self.url = ""

    async def publish(self, request: web.Request) -> web.Response:
        body = await request.read()
        form = {name: value for name, (value,) in parse_qs(body.decode(), keep_blank_values=True).items()}
        assert (form["Action"], form["Version"]) == ("Publish", "2010-03-31")
        self.requests.append(({name.lower(): value for name, value in request.headers.items()}, body))
        self.got.append((form["TopicArn"], json.loads(form["Message"])))
        await self.gate.wait()
        status, text = self.answer(*self.got[-1])
        return web.Response(status=status, text=text, content_type="text/xml")

    async def hook(self, request: web.Request) -> web.Response:
        self.hooks.append((await request.json())["data"])
        return web.Response()

    def events(self, arn: str = ALARMS) -> list[tuple[str, str]]:
        """(thing, event) as they came to a topic."""
        return [(told["thingName"], told["violationEventType"]) for topic, told in self.got if topic == arn]


@pytest.fixture
async def sns() -> AsyncIterator[Sns]:
    site = Sns()
    app = web.Application()
    app.router.add_post("/", site.publish)
    app.router.add_post("/hook", site.hook)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield site
    site.gate.set()
    await runner.cleanup()


class Session:
    """What botocore's session is to us."""

    def __init__(self, keys: ReadOnlyCredentials | None = KEYS) -> None:
        self.keys = keys

    def get_credentials(self) -> Any:
        return self if self.keys else None

    def get_frozen_credentials(self) -> ReadOnlyCredentials | None:
        return self.keys


def profiles(**topics: str | None) -> Rules:
    """Profiles, and the topics that they name."""
    return Rules(
        profiles=tuple(
            SecurityProfile(name, alert_targets={"SNS": AlertTarget(arn, "arn:aws:iam::1:role/r")} if arn else {})
            for name, arn in topics.items()
        )
    )


class Daemon:
    """A store and a dispatch on a virtual clock, whose topics are at `sns`."""

    def __init__(self, folder: Path, sns: Sns) -> None:
        self.clock = VirtualClock(START_NS)
        self.news: list[News] = []
        self.chain = Chain(Session)
        self._path, self._sns = folder / "detectd.db", sns

    async def start(self, rules: Rules, *webhooks: Webhook) -> None:
        self.store = await Store.open(self._path, clock=self.clock.now_ns)
        self.session = client_session()
        self.dispatch = Dispatch(self.store, self.clock, self.session, on_news=self.news.append)
        await self.dispatch.use_topics(rules)
        await self.reload(*webhooks)

    async def reload(self, *webhooks: Webhook) -> None:
        plan = self.dispatch.prepare(Receivers(webhooks=webhooks), AwsOut({"sns": self._sns.url}))
        assert plan.tools is not None
        await self.dispatch.apply(replace(plan, tools=replace(plan.tools, aws=self.chain)))

    async def stop(self, deadline_s: float = 10) -> None:
        await self.dispatch.stop(deadline_s)
        await self.session.close()
        await self.store.close()

    async def states(self) -> dict[tuple[str, str], State]:
        """{(thing, event): state}"""
        return {(row.thing, row.event_type): row.state for row in await self.store.outbox_list(limit=100_000)}

    async def whys(self) -> set[str]:
        return {row.why for row in await self.store.outbox_list(limit=100_000)}

    def topics(self) -> list[str]:
        return [one.name for one in self.dispatch.status() if one.name.startswith("sns:")]


async def eventually(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.002)


@pytest.fixture
async def daemon(tmp_path: Path, sns: Sns) -> AsyncIterator[Daemon]:
    daemon = Daemon(tmp_path, sns)
    yield daemon
    sns.gate.set()
    await daemon.stop()
    assert not [news for news in daemon.news if isinstance(news, Crashed)]


@pytest.fixture
async def tools(sns: Sns) -> AsyncIterator[Tools]:
    async with client_session() as session:
        yield Tools(session, lambda: START_NS, {"sns": sns.url}, Chain(Session))


def notice(**members: Any) -> Notice:
    told = raised(**members)
    name = f"{told.violation_id}-in-alarm-ops"
    return Notice(1, name, "ops", told.violation_id, "in-alarm", told.thing, told.time_ns, 0, message(told))


# One attempt


async def test_the_signature_is_the_one_that_botocore_makes_of_what_arrived(sns: Sns, tools: Tools) -> None:
    assert await SnsNotifier(Topic("ops", ALARMS), tools).send(notice(thing="a b+c~ü/é")) == Delivered()
    ((headers, body),) = sns.requests
    names = headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    # Of a plain dict: AWSRequest would give a date of its own to the request.
    again = AWSRequest("POST", sns.url + "/", headers={name: headers[name] for name in names}, data=body)
    again.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(KEYS, "sns", "eu-west-1")
    text = signer.string_to_sign(again, signer.canonical_request(again))
    assert headers["authorization"].endswith(f"Signature={signer.signature(text, again)}")
    assert {"host", "x-amz-date", "content-type"} <= set(names)


async def test_an_answer_that_comes_in_pieces_is_read_to_its_end(tools: Tools) -> None:
    """A first piece without the MessageId looked like somebody else's answer, and the alarm went out again."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        asked += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PUBLISHED))
        for at in range(len(PUBLISHED)):
            writer.write(PUBLISHED[at : at + 1].encode())
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        outcome = await SnsNotifier(Topic("ops", ALARMS), replace(tools, endpoint_urls={"sns": url})).send(notice())
    assert outcome == Delivered()
    assert asked == 1


async def test_an_answer_without_end_is_read_no_further_than_needed(tools: Tools) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        outcome = await SnsNotifier(Topic("ops", ALARMS), replace(tools, endpoint_urls={"sns": url})).send(notice())
    assert outcome == Retry(Reason.PROTOCOL, "HTTP 200, not by SNS")


async def test_a_long_message_arrives_as_short_as_sns_takes_it(sns: Sns, tools: Tools) -> None:
    long = notice(value=MetricValue(strings=tuple("x" * 300 for _ in range(1000))))
    assert await SnsNotifier(Topic("ops", ALARMS), tools).send(long) == Delivered()
    ((_, told),) = sns.got
    assert "metricValue" not in told
    assert told["violationEventAdditionalInfo"] == {"detectd:omitted": "metricValue"}


# From the outbox


async def test_a_topic_hears_of_the_profiles_that_name_it_and_a_webhook_of_all(daemon: Daemon, sns: Sns) -> None:
    await daemon.start(profiles(a=ALARMS, b=OTHERS, c=None, d=ALARMS), Webhook("ops", sns.url + "/hook"))
    told = [raised(name, profile=name) for name in "abcd"]
    await daemon.store.commit([*told, raised("hush", profile="a", behavior=behavior(suppress_alerts=True))])
    await eventually(lambda: len(sns.hooks) == 4 and len(sns.got) == 3)
    assert sorted(sns.events()) == [("a", "in-alarm"), ("d", "in-alarm")]
    assert sns.events(OTHERS) == [("b", "in-alarm")]


async def test_a_message_is_what_the_webhook_is_told_with_the_verification_of_then(daemon: Daemon, sns: Sns) -> None:
    await daemon.start(profiles(MeterProfile=ALARMS), Webhook("ops", sns.url + "/hook"))
    await daemon.store.commit([raised("p1"), raised("p2")])
    await daemon.store.verify(raised("p1").violation_id, "TRUE_POSITIVE", None)
    await daemon.store.commit([cleared("p1"), invalidated("p2")])
    await eventually(lambda: len(sns.hooks) == len(sns.got) == 4)

    def in_order(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(messages, key=lambda one: (one["thingName"], one["violationEventType"] != "in-alarm"))

    messages = in_order([told for _, told in sns.got])
    assert messages == in_order(sns.hooks)
    assert [one["verificationState"] for one in messages] == ["UNKNOWN", "TRUE_POSITIVE", "UNKNOWN", "UNKNOWN"]
    assert ["metricValue" in one for one in messages] == [True, True, True, False]
    assert all(type(one["violationEventTime"]) is int for one in messages)


async def test_what_fails_is_tried_again_in_order_and_delivered(daemon: Daemon, sns: Sns) -> None:
    answers: Iterator[tuple[int, str]] = iter([error(500, "InternalError"), error(400, "Throttling")])
    sns.answer = lambda _arn, _message: next(answers, (200, PUBLISHED))
    await daemon.start(profiles(MeterProfile=ALARMS))
    await daemon.store.commit([raised("p1"), cleared("p1"), raised("p1", 1)])
    stats = daemon.dispatch.stats["sns:" + ALARMS]
    for failures in (1, 2):
        await eventually(lambda failures=failures: stats.failed.total() == failures)  # type: ignore[misc]  # mypy#12459
        await daemon.clock.advance(2.5)
    await eventually(lambda: stats.delivered == 3)
    assert sns.events() == [*[("p1", "in-alarm")] * 3, ("p1", "alarm-cleared"), ("p1", "in-alarm")]
    assert stats.failed == {Reason.SERVER_ERROR: 1, Reason.THROTTLED: 1}


async def test_what_sns_refuses_is_dead_said_once_and_the_topic_goes_on(daemon: Daemon, sns: Sns) -> None:
    sns.answer = lambda _arn, _message: error(404, "NotFound")
    await daemon.start(profiles(MeterProfile=ALARMS))
    await daemon.store.commit([raised(f"p{at}") for at in range(20)])
    await eventually(lambda: daemon.dispatch.stats["sns:" + ALARMS].dead == 20)
    assert set((await daemon.states()).values()) == {State.DEAD}
    assert await daemon.whys() == {"client-error: HTTP 404 NotFound"}
    assert [news.first for news in daemon.news if isinstance(news, Died)] == [True] + [False] * 19
    sns.answer = lambda _arn, _message: (200, PUBLISHED)
    rows = await daemon.store.outbox_list(limit=100)
    assert len(await daemon.dispatch.resend([row.id for row in rows])) == 20
    await eventually(lambda: daemon.dispatch.stats["sns:" + ALARMS].delivered == 20)
    assert [news.recovered for news in daemon.news if isinstance(news, Sent)] == [True] + [False] * 19


async def test_a_mute_endpoint_holds_up_no_webhook(daemon: Daemon, sns: Sns) -> None:
    sns.gate.clear()
    await daemon.start(profiles(MeterProfile=ALARMS), Webhook("ops", sns.url + "/hook"))
    await daemon.store.commit([raised(f"p{at}") for at in range(200)])
    await eventually(lambda: len(sns.hooks) == 200)
    assert daemon.dispatch.stats["sns:" + ALARMS].delivered == 0
    assert len(sns.got) <= 16
    sns.gate.set()
    await eventually(lambda: daemon.dispatch.stats["sns:" + ALARMS].delivered == 200)


async def test_rows_of_a_topic_that_no_profile_names_any_more_still_go_to_it(daemon: Daemon, sns: Sns) -> None:
    sns.gate.clear()
    await daemon.start(profiles(MeterProfile=ALARMS))
    await daemon.store.commit([raised("p1"), cleared("p1"), raised("p2")])
    await daemon.dispatch.use_topics(profiles(MeterProfile=OTHERS))
    await daemon.store.commit([raised("p3")])
    await daemon.stop(0)  # as after a kill: what was in flight is not marked
    sns.gate.set()
    sns.got.clear()
    await daemon.start(profiles(MeterProfile=OTHERS))
    await daemon.store.commit([cleared("p2")])
    await eventually(lambda: len(sns.got) == 5)
    assert sorted(sns.events()) == [
        ("p1", "alarm-cleared"),
        ("p1", "in-alarm"),
        ("p2", "alarm-cleared"),
        ("p2", "in-alarm"),
    ]
    assert sns.events(OTHERS) == [("p3", "in-alarm")]


async def test_a_topic_goes_once_nothing_more_is_to_come(daemon: Daemon, sns: Sns) -> None:
    await daemon.start(profiles(MeterProfile=ALARMS))
    await daemon.store.commit([raised("p1")])
    await eventually(lambda: len(sns.got) == 1)
    await daemon.dispatch.use_topics(profiles(MeterProfile=OTHERS))
    assert daemon.topics() == ["sns:" + ALARMS, "sns:" + OTHERS]  # its alarm is open
    await daemon.store.commit([cleared("p1")])
    await eventually(lambda: sns.events() == [("p1", "in-alarm"), ("p1", "alarm-cleared")])
    await eventually(lambda: daemon.dispatch.stats["sns:" + ALARMS].delivered == 2)
    for at in range(200):  # the API may name another topic every second
        await daemon.dispatch.use_topics(profiles(MeterProfile=f"{ARN}topic-{at}"))
    await daemon.dispatch.use_topics(profiles(MeterProfile=OTHERS))
    await eventually(lambda: len(daemon.topics()) <= 2 and len(daemon.dispatch.stats) <= 2)
    await daemon.store.commit([raised("p9")])
    await eventually(lambda: sns.events(OTHERS) == [("p9", "in-alarm")])


async def test_a_profile_that_is_being_deleted_is_heard_until_the_log_has_it(daemon: Daemon, sns: Sns) -> None:
    await daemon.start(profiles(MeterProfile=ALARMS))
    await daemon.dispatch.use_topics(profiles())  # told before the entry is in the log
    await daemon.store.commit([raised("p1"), invalidated("p1")])
    await eventually(lambda: sns.events() == [("p1", "in-alarm"), ("p1", "alarm-invalidated")])


async def test_nothing_is_sent_before_it_is_known_where(daemon: Daemon, sns: Sns) -> None:
    """Rows of before a kill went to AWS itself, until the configured endpoint was applied."""
    sns.gate.clear()
    await daemon.start(profiles(MeterProfile=ALARMS))
    await daemon.store.commit([raised("p1")])
    await daemon.stop(0)
    sns.gate.set()
    store = await Store.open(daemon.store.path, clock=daemon.clock.now_ns)
    async with client_session() as session:
        dispatch = Dispatch(store, daemon.clock, session)
        await dispatch.use_topics(profiles(MeterProfile=ALARMS))
        assert dispatch.status() == []
        await dispatch.stop()
    await store.close()
    await daemon.start(profiles(MeterProfile=ALARMS))
    await eventually(lambda: daemon.dispatch.stats["sns:" + ALARMS].delivered == 1)


# Credentials


async def test_without_credentials_it_waits_and_says_so_until_there_are_some(daemon: Daemon, sns: Sns) -> None:
    now_s = 0.0
    keys: list[ReadOnlyCredentials] = []
    daemon.chain = Chain(lambda: Session(keys[0] if keys else None), lambda: now_s)
    await daemon.start(profiles(MeterProfile=ALARMS), Webhook("ops", sns.url + "/hook"))
    await daemon.store.commit([raised(f"p{at}") for at in range(40)])
    stats = daemon.dispatch.stats["sns:" + ALARMS]
    await eventually(lambda: stats.failed.total() == 40 and len(sns.hooks) == 40)
    assert daemon.chain.lookups == 1
    assert "no AWS credentials (botocore's chain: environment, files, roles)" in stats.last_why
    assert len([news for news in daemon.news if isinstance(news, Failed) and news.first]) == 1
    keys.append(KEYS)
    now_s += AGAIN_S
    await daemon.clock.advance(2)
    await eventually(lambda: stats.delivered == 40)
    assert daemon.chain.lookups == 2


async def test_a_chain_that_hangs_holds_up_no_webhook_nor_anything_in_threads(daemon: Daemon, sns: Sns) -> None:
    go_on = threading.Event()

    def hang() -> Session:
        go_on.wait(60)
        return Session()

    daemon.chain = Chain(hang)
    await daemon.start(profiles(MeterProfile=ALARMS), Webhook("ops", sns.url + "/hook"))
    await daemon.store.commit([raised(f"p{at}") for at in range(100)])
    try:
        await eventually(lambda: len(sns.hooks) == 100)
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(lambda: "free") == "free"
        assert sns.got == []
        assert daemon.chain.lookups == 1
    finally:
        go_on.set()
    await eventually(lambda: daemon.dispatch.stats["sns:" + ALARMS].delivered == 100)


async def test_keys_that_aws_takes_no_more_are_read_again(daemon: Daemon, sns: Sns) -> None:
    now_s = 0.0
    given = [ReadOnlyCredentials("AKIDOLD", "old", None), ReadOnlyCredentials("AKIDNEW", "new", None)]
    opened: list[Session] = []

    def open_session() -> Session:
        opened.append(Session(given[min(len(opened), 1)]))
        return opened[-1]

    def answer(_arn: str, _message: dict[str, Any]) -> tuple[int, str]:
        is_new = "AKIDNEW" in sns.requests[-1][0]["authorization"]
        return (200, PUBLISHED) if is_new else error(403, "ExpiredToken")

    sns.answer = answer
    daemon.chain = Chain(open_session, lambda: now_s)
    await daemon.start(profiles(MeterProfile=ALARMS))
    await daemon.store.commit([raised("p1")])
    stats = daemon.dispatch.stats["sns:" + ALARMS]
    await eventually(lambda: stats.failed == {Reason.CLIENT_ERROR: 1})
    now_s += AGAIN_S
    await daemon.clock.advance(2)
    await eventually(lambda: stats.delivered == 1)
    assert len(opened) == 2


async def test_credentials_are_kept_for_a_while_and_then_asked_for_again() -> None:
    now_s = 0.0
    chain = Chain(Session, lambda: now_s)
    for _ in range(10):
        await chain.find()
    assert chain.lookups == 1
    now_s += KEPT_S
    await asyncio.gather(*(chain.find() for _ in range(10)))
    assert chain.lookups == 2


async def test_a_chain_that_breaks_says_of_what_kind_and_no_more() -> None:
    def broken() -> Session:
        raise LookupError("the program printed sekret+/key")

    with pytest.raises(NoCredentials, match=r"^AWS credentials can't be read \(LookupError\)$"):
        await Chain(broken).find()


async def test_botocores_own_chain_is_asked_and_its_endpoints_are_aws_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS.secret_key)
    chain = Chain()
    found = await chain.find()
    assert (found.keys.access_key, found.keys.secret_key) == (KEYS.access_key, KEYS.secret_key)
    assert await chain.endpoint("sns", "eu-west-1") == "https://sns.eu-west-1.amazonaws.com"
    assert await chain.endpoint("sns", "cn-north-1") == "https://sns.cn-north-1.amazonaws.com.cn"
    monkeypatch.setenv("AWS_PROFILE", "of-nobody")
    with pytest.raises(NoCredentials, match="ProfileNotFound"):
        await Chain().endpoint("sns", "eu-west-1")


async def test_a_secret_is_in_no_repr_no_news_and_no_row(daemon: Daemon, sns: Sns) -> None:
    sns.answer = lambda _arn, _message: error(403, "SignatureDoesNotMatch")
    await daemon.start(profiles(MeterProfile=ALARMS))
    await daemon.store.commit([raised("p1")])
    await eventually(lambda: daemon.dispatch.stats["sns:" + ALARMS].failed.total() == 1)
    said = f"{await daemon.chain.find()!r} {daemon.chain!r} {daemon.news!r} {daemon.dispatch.status()!r}"
    said += repr(await daemon.store.outbox_list())
    assert "SignatureDoesNotMatch" in said
    assert KEYS.secret_key not in said
