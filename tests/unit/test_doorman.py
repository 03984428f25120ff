"""Who a client is, whether it may come in, and which things it speaks for."""

import datetime as dt
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from config.model import Client, Devices, Embedded, Tls
from daemon.clock import VirtualClock
from daemon.devices import passwords
from daemon.devices.credentials import Device, DevicesFile, credentials_of, fingerprint_of
from daemon.devices.doorman import OTHERS, Door, Doorman, Pass, Reason, door_of, thing_in
from daemon.devices.logins import FAILURES_PER_USER, Logins
from daemon.devices.passwords import Cost
from daemon.sensor.door import Hello, Refusal

NEAR = Door(checks=True, must_show=False)
FAR = Door(checks=True, must_show=True)
CLIENTS = (Client(pattern=r"plant-(\w+)-[ab]", thing=r"\1"),)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(*common_names: str) -> bytes:
    """DER. Whether a CA stands behind it is the listener's to check, not the doorman's."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in common_names])
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(day)
    return made.not_valid_after(day + dt.timedelta(365)).sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def password(text: str) -> Device:
    return Device(password=passwords.hashed(text.encode(), Cost(4)).text)


def listed(*ders: bytes) -> Device:
    return Device(fingerprints=tuple(map(fingerprint_of, ders)))


REVOKED = Device(revoked=True)


class Stage:
    """A doorman, and the credentials that it goes by."""

    def __init__(self, folder: Path, door: Door, devices: Mapping[str, Device], settings: Devices, clients) -> None:
        self.file = DevicesFile(folder)
        self.clock = VirtualClock()
        logins = Logins(self.clock.monotonic_ns)
        self.put(devices)
        self.doorman = Doorman(door, settings, clients, self.file, logins, self.clock)

    def put(self, devices: Mapping[str, Device]) -> None:
        self.file.current = credentials_of(devices)
        self.file.revision += 1


@pytest.fixture
def stage(tmp_path):
    def build(door=NEAR, devices=None, clients=(), **settings) -> Stage:
        return Stage(tmp_path, door, devices or {}, Devices(**settings), clients)

    return build


def hello(client_id="t1", username=None, password=None, certificate=None) -> Hello:
    return Hello(client_id, username, password, certificate, "192.0.2.7")


def report(thing: str, form: str = "json") -> str:
    return f"$aws/things/{thing}/defender/metrics/{form}"


async def let_in(stage: Stage, said: Hello) -> Pass:
    given = await stage.doorman.admit(said)
    assert isinstance(given, Pass), given
    return given


async def turned_away(stage: Stage, said: Hello) -> Refusal:
    given = await stage.doorman.admit(said)
    assert isinstance(given, Refusal), given
    assert sum(stage.doorman.refusals.values()) == 1
    assert stage.doorman.refusals[Reason(given.reason)] == 1
    return given


def may(given: Pass, *things: str) -> list[bool]:
    """For each thing: whether it may report for it, and read its replies."""
    verdicts = []
    for thing in things:
        may_report = given.may_publish(report(thing))
        assert given.may_subscribe(report(thing) + "/accepted") == may_report
        verdicts.append(may_report)
    return verdicts


# ---- without credentials ----


async def test_on_loopback_without_credentials_anyone_may_everything_unread(stage):
    given = await let_in(stage(), hello("x", "?SDK=Python&Version=1"))
    assert (given.judges, given.user) == (False, "")
    assert may(given, "t1", "t2") == [True, True]


async def test_off_loopback_nobody_comes_in_before_there_are_credentials(stage):
    told = await turned_away(stage(FAR), hello("t1", "t1", b"guess"))
    assert told == Refusal("login", 4)
    assert await stage(FAR).doorman.admit(hello()) == Refusal("no-credentials", 5)


async def test_with_identity_on_a_client_that_shows_nothing_is_its_client_id(stage):
    given = await let_in(stage(identity="on"), hello("t1", "t2"))  # a name that nobody checks opens nothing
    assert may(given, "t1", "t2") == [True, False]


@pytest.mark.parametrize("client_id", ["+", "#", "a/b", "", "a\0"])
async def test_a_client_id_that_could_stand_for_several_things_is_refused(stage, client_id):
    assert await turned_away(stage(identity="on"), hello(client_id)) == Refusal("name", 5)


# ---- passwords ----


async def test_a_password_opens_the_topics_of_one_thing(stage):
    given = await let_in(stage(devices={"t1": password("a")}), hello("t1", "t1", b"a"))
    assert (given.user, given.judges) == ("t1", True)
    assert may(given, "t1", "t2", "t", "t11", "T1", "") == [True, False, False, False, False, False]


@pytest.mark.parametrize("name", ["t1", "t2", "nobody"])
async def test_a_wrong_password_is_told_the_same_whether_the_user_is_there_or_not(stage, name):
    devices = {"t1": password("a"), "t2": listed(certificate("t2"))}
    assert await turned_away(stage(devices=devices), hello(name, name, b"x")) == Refusal("login", 4)


async def test_an_unknown_user_costs_a_check_as_a_known_one_does(stage):
    checks = []
    one = stage(devices={"t1": password("a")})
    one.doorman._logins._is_right = lambda _password, kept: bool(checks.append(kept.cost))
    for name in ("t1", "nobody"):
        await one.doorman.admit(hello(name, name, b"x"))
    assert checks == [Cost(4), Cost(4)]


@pytest.mark.parametrize("said", [hello("t1"), hello("t1", "t1"), hello("t1", None, b"a"), hello("t1", "?SDK", b"a")])
async def test_where_credentials_exist_a_client_that_shows_none_is_refused(stage, said):
    assert await turned_away(stage(devices={"t1": password("a")}), said) == Refusal("no-credentials", 5)


async def test_what_an_sdk_adds_to_the_user_name_is_not_part_of_it(stage):
    given = await let_in(stage(devices={"t1": password("a")}), hello("t1", "t1?SDK=Python&Version=2", b"a"))
    assert given.user == "t1"


async def test_a_device_does_not_take_the_client_id_of_another(stage):
    devices = {"t1": password("a"), "t2": password("b")}
    assert await turned_away(stage(devices=devices), hello("t2", "t1", b"a")) == Refusal("client-id", 5)


@pytest.mark.parametrize("client_id", ["", "x"])
async def test_a_client_id_is_the_devices_own(stage, client_id):
    assert (await turned_away(stage(devices={"t1": password("a")}), hello(client_id, "t1", b"a"))).code == 5


async def test_identity_off_asks_for_credentials_and_judges_nothing_else(stage):
    one = stage(devices={"t1": password("a")}, identity="off")
    given = await let_in(one, hello("whatever", "t1", b"a"))
    assert (given.user, given.judges) == ("t1", False)
    assert await turned_away(one, hello("whatever")) == Refusal("no-credentials", 5)


async def test_who_keeps_failing_is_refused_also_with_the_right_password_for_a_while(stage):
    one = stage(devices={"t1": password("a")})
    for _ in range(FAILURES_PER_USER):
        await one.doorman.admit(hello("t1", "t1", b"x"))
    assert await one.doorman.admit(hello("t1", "t1", b"a")) == Refusal("throttled", 5)
    await one.clock.advance(5)
    await let_in(one, hello("t1", "t1", b"a"))


# ---- certificates ----


async def test_the_common_name_of_a_certificate_is_the_thing(stage):
    given = await let_in(stage(FAR), hello("t1", certificate=certificate("t1")))
    assert (given.user, may(given, "t1", "t2")) == ("t1", [True, False])


async def test_a_certificate_needs_no_password_and_is_heard_before_one(stage):
    one = stage(devices={"t2": password("b")})
    given = await let_in(one, hello("t1", "t2", b"wrong", certificate("t1")))
    assert given.user == "t1"


async def test_where_fingerprints_are_listed_for_a_name_only_those_are_good_for_it(stage):
    mine, spare, other = certificate("t1"), certificate("t1"), certificate("t1")
    one = stage(FAR, devices={"t1": listed(mine, spare)})
    await let_in(one, hello("t1", certificate=mine))
    await let_in(one, hello("t1", certificate=spare))
    assert await turned_away(one, hello("t1", certificate=other)) == Refusal("certificate", 5)


async def test_a_listed_fingerprint_names_the_device_whatever_the_certificate_says(stage):
    # Every certificate that AWS issued has the same common name.
    mine = certificate("AWS IoT Certificate")
    given = await let_in(stage(FAR, devices={"t1": listed(mine)}), hello("t1", certificate=mine))
    assert given.user == "t1"


async def test_a_name_that_was_revoked_opens_nothing_though_the_authority_vouches_for_it(stage):
    one = stage(FAR, devices={"t1": REVOKED})
    assert await turned_away(one, hello("t1", certificate=certificate("t1"))) == Refusal("revoked", 5)


NAMELESS = [certificate(), certificate("t1", "t2"), certificate("AWS IoT Certificate"), b"no certificate"]


@pytest.mark.parametrize("shown", NAMELESS)
async def test_a_certificate_that_names_nobody_leaves_it_to_the_password(stage, shown):
    one = stage(FAR, devices={"t1": password("a")})
    await let_in(one, hello("t1", "t1", b"a", shown))
    assert await turned_away(one, hello("t1", "t1", b"b", shown)) == Refusal("login", 4)


@pytest.mark.parametrize("shown", NAMELESS)
async def test_a_certificate_that_names_nobody_lets_in_under_a_client_id_that_is_not_on_file(stage, shown):
    devices = {"t1": password("a"), "t2": listed(certificate("t2")), "t3": REVOKED}
    one = stage(FAR, devices=devices, clients=CLIENTS)
    given = await let_in(one, hello("t4", "?SDK=x", None, shown))
    assert (given.user, may(given, "t4", "t1")) == ("t4", [True, False])
    told = [await one.doorman.admit(hello(name, certificate=shown)) for name in ("t1", "t2", "t3", "plant-t1-a", "+")]
    assert [each.reason for each in told] == ["certificate", "certificate", "revoked", "certificate", "name"]


async def test_a_client_id_that_comes_on_file_must_show_what_is_there(stage):
    one, shown = stage(FAR), certificate()
    said = hello("t1", certificate=shown)
    given = await let_in(one, said)
    one.put({"t2": REVOKED})
    assert one.doorman.still_good(said, given)
    one.put({"t1": password("a")})
    assert not one.doorman.still_good(said, given)


@pytest.mark.parametrize("name", ["+", "#", "a/b"])
async def test_a_common_name_that_could_stand_for_several_things_is_refused(stage, name):
    assert await turned_away(stage(FAR), hello(name, certificate=certificate(name))) == Refusal("name", 5)


# ---- gateways and patterns ----


async def test_a_gateway_speaks_for_its_things_and_for_itself(stage):
    one = stage(devices={"g": password("a")}, gateways={"g": ("t1", "site-*"), "h": ("t2",)})
    given = await let_in(one, hello("g", "g", b"a"))
    assert may(given, "g", "t1", "site-", "site-9", "t2", "site") == [True, True, True, True, False, False]


async def test_a_gateway_may_connect_as_each_of_its_things(stage):
    one = stage(devices={"g": password("a")}, gateways={"g": ("site-*",)})
    await let_in(one, hello("site-1", "g", b"a"))
    assert await turned_away(one, hello("t1", "g", b"a")) == Refusal("client-id", 5)


async def test_a_gateway_for_all_may_use_wildcards_and_no_other_may(stage):
    devices = {"all": password("a"), "some": password("b")}
    one = stage(devices=devices, gateways={"all": ("*",), "some": ("site-*",)})
    everyone = await let_in(one, hello("all", "all", b"a"))
    some = await let_in(one, hello("some", "some", b"b"))
    for topic_filter in ("$aws/things/+/defender/metrics/json/accepted", "$aws/things/#", "$aws/#"):
        assert everyone.may_subscribe(topic_filter)
        assert not some.may_subscribe(topic_filter)
    assert not everyone.may_publish("$aws/things//defender/metrics/json")


async def test_a_client_id_that_a_pattern_maps_to_its_thing_is_its_own(stage):
    one = stage(devices={"t1": password("a")}, clients=CLIENTS)
    for client_id in ("t1", "plant-t1-a", "plant-t1-b"):
        assert may(await let_in(one, hello(client_id, "t1", b"a")), "t1", "t2") == [True, False]
    assert await turned_away(one, hello("plant-t2-a", "t1", b"a")) == Refusal("client-id", 5)


async def test_a_pattern_says_which_thing_an_identity_is(stage):
    given = await let_in(stage(identity="on", clients=CLIENTS), hello("plant-t1-a"))
    assert may(given, "t1", "plant-t1-a", "t2") == [True, False, False]


async def test_a_pattern_makes_no_wildcard_of_a_thing(stage):
    clients = (Client(pattern="(.*)", thing="+"),)
    given = await let_in(stage(identity="on", clients=clients), hello("t1"))
    assert not given.may_subscribe("$aws/things/+/defender/metrics/json/accepted")


# ---- in front of other brokers ----


async def test_in_front_of_another_broker_clients_are_bound_only_where_that_is_asked_for(stage):
    devices = {"t1": password("a")}
    assert not (await let_in(stage(OTHERS, devices), hello("x", "t2", b"?"))).judges
    given = await let_in(stage(OTHERS, devices, identity="on"), hello("t2", "t2", b"its own password"))
    assert may(given, "t1", "t2") == [False, True]


async def test_in_front_of_another_broker_the_certificate_comes_before_the_user_and_that_before_the_id(stage):
    one = stage(OTHERS, identity="on")
    assert (await let_in(one, hello("t1", "t1", b"", certificate("t1")))).user == "t1"
    assert await one.doorman.admit(hello("t2", "t2", b"", certificate("t1"))) == Refusal("client-id", 5)
    assert (await let_in(one, hello("t3", "?SDK=x"))).user == "t3"


# ---- topics ----


@pytest.mark.parametrize(
    ("topic", "thing"),
    [
        ("$aws/things/t1/defender/metrics/json", "t1"),
        ("$aws/things/t1/shadow/update", "t1"),
        ("$aws/things/t1", "t1"),
        ("$aws/things/#", "#"),
        ("$aws/things/+/defender/#", "+"),
        ("$aws/#", "#"),
        ("$aws/+/t1/#", "t1"),
        ("$aws/+/+", "+"),
        ("$aws/things//x", ""),
        ("$share/g/$aws/things/t1/x", "t1"),
        ("$queue/$aws/things/+/x", "+"),
        ("$exclusive/$share/g/$aws/things/t1/x", "t1"),
        ("$delayed/5/$aws/things/t1/x", "t1"),
        ("$queue/" * 9 + "$aws/things/t1/x", "#"),
        ("$aws/things", None),
        ("$aws", None),
        ("$aws/rules/r", None),
        ("$awsx/things/t1/x", None),
        ("$AWS/things/t1/x", None),
        ("$aws.things.t1.x", None),
        ("x/$aws/things/t1/x", None),
        ("/$aws/things/t1/x", None),
        ("$share/g", None),
        ("$share", None),
        ("", None),
        ("#", None),
        ("dt/t1/up", None),
    ],
)
def test_the_thing_whose_topics_these_are(topic, thing):
    assert thing_in(topic) == thing


def matches(topic_filter: Sequence[str], topic: Sequence[str]) -> bool:
    """MQTT 4.7, level by level."""
    if topic_filter[0] in {"+", "#"} and topic[0].startswith("$"):
        return False
    for at, level in enumerate(topic_filter):
        if level == "#":
            return len(topic) >= at
        if at == len(topic) or level not in {"+", topic[at]}:
            return False
    return len(topic_filter) == len(topic)


async def test_exactly_the_filters_that_reach_no_topic_of_another_thing_are_open(stage):
    given = await let_in(stage(identity="on"), hello("t1"))
    names = ["$aws", "things", "t1", "t2", ""]
    below = [[], *([name] for name in names)]
    of_others = [["$aws", "things", thing, *rest] for thing in names if thing != "t1" for rest in below]
    tried = 0
    for length in (1, 2, 3, 4):
        for levels in itertools.product([*names, "+", "#"], repeat=length):
            if "#" not in levels[:-1]:
                reaches = any(matches(levels, topic) for topic in of_others)
                assert given.may_subscribe("/".join(levels)) != reaches, levels
                tried += 1
    assert tried > 1500


async def test_all_topics_that_are_no_things_are_open(stage):
    given = await let_in(stage(identity="on"), hello("t1"))
    for topic in ("dt/t2/up", "t2", "$SYS/broker/x", "#", "+/things/t2/#", "$aws/rules/r", ""):
        assert given.may_publish(topic)
        assert given.may_subscribe(topic)


# ---- what changes while a client is in ----


async def test_a_pass_is_good_until_what_was_shown_is_gone(stage):
    devices = {"t1": password("a"), "t2": password("b"), "t3": listed(certificate("t3"))}
    one = stage(devices=devices)
    shown = certificate("t4")
    first, second, third = hello("t1", "t1", b"a"), hello("t2", "t2", b"b"), hello("t4", certificate=shown)
    passes = [(said, await let_in(one, said)) for said in (first, second, third)]
    before = one.doorman.revision

    def good() -> list[bool]:
        return [one.doorman.still_good(said, given) for said, given in passes]

    assert good() == [True, True, True]
    one.put(devices | {"t1": REVOKED})
    assert one.doorman.revision > before
    assert good() == [False, True, True]
    one.put(devices | {"t1": password("a")})  # the same password, set anew
    assert good() == [False, True, True]
    one.put(devices | {"t2": REVOKED, "t4": REVOKED})
    assert good() == [True, False, False]
    one.put(devices | {"t4": listed(certificate("t4"))})
    assert good() == [True, True, False]
    one.put(devices | {"t5": listed(shown)})  # now it is the certificate of another
    assert good() == [True, True, False]
    one.put({})
    assert good() == [False, False, False]  # nobody is asked any more: what its name was worth is not known


async def test_a_listed_certificate_is_good_while_it_is_listed_there(stage):
    mine = certificate("x")
    one = stage(FAR, devices={"t1": listed(mine)})
    said = hello("t1", certificate=mine)
    given = await let_in(one, said)
    one.put({"t1": listed(mine, certificate("x"))})
    assert one.doorman.still_good(said, given)
    one.put({"t2": listed(mine)})
    assert not one.doorman.still_good(said, given)


async def test_the_first_credentials_end_the_stay_of_those_who_showed_none(stage):
    one = stage()
    said = hello("t1")
    given = await let_in(one, said)
    assert one.doorman.still_good(said, given)
    one.put({"t1": password("a")})
    assert not one.doorman.still_good(said, given)


async def test_a_device_that_was_revoked_while_its_password_was_checked_does_not_come_in(stage):
    one = stage(devices={"t1": password("a")})

    def slowly(_password, _kept) -> bool:
        one.put({"t1": REVOKED})
        return True

    one.doorman._logins._is_right = slowly
    assert await turned_away(one, hello("t1", "t1", b"a")) == Refusal("revoked", 5)


async def test_a_reload_that_changes_nothing_here_disturbs_nobody(stage):
    one = stage(gateways={"g": ("t1",)}, clients=CLIENTS)
    before = one.doorman.revision
    one.doorman.configure(Devices(gateways={"g": ("t1",)}), list(CLIENTS))
    assert one.doorman.revision == before


async def test_a_reload_changes_what_a_gateway_may_and_leaves_others_alone(stage):
    one = stage(devices={"g": password("a"), "t1": password("b")}, gateways={"g": ("t1",)})
    gateway, device = hello("g", "g", b"a"), hello("t1", "t1", b"b")
    passes = [await let_in(one, gateway), await let_in(one, device)]
    before = one.doorman.revision
    one.doorman.configure(Devices(gateways={"g": ("t2",)}), ())
    assert one.doorman.revision == before + 1
    assert [one.doorman.still_good(*each) for each in zip((gateway, device), passes, strict=True)] == [False, True]
    assert may(await let_in(one, gateway), "t1", "t2") == [False, True]


# ---- doors, and what is shown ----


TLS = Tls(cert=Path("c"), key=Path("k"))


@pytest.mark.parametrize(
    ("embedded", "must_show"),
    [
        (Embedded(), False),
        (Embedded(mqtt="[::1]:1883", tls=TLS), False),
        (Embedded(tls=Tls(cert=Path("c"), key=Path("k"), ca=Path("a"))), True),
        (Embedded(mqtt="0.0.0.0:8883", tls=TLS), True),
    ],
)
def test_off_loopback_and_with_a_ca_nobody_comes_in_on_its_word(embedded, must_show):
    assert door_of(embedded) == Door(checks=True, must_show=must_show)


async def test_neither_hello_nor_pass_shows_what_was_shown(stage):
    said = hello("t1", "t1", b"open sesame", certificate("t1"))
    assert "sesame" not in repr(said)
    assert "certificate" not in repr(said)
    given = await let_in(stage(devices={"t1": password("a")}), hello("t1", "t1", b"a"))
    assert "scrypt" not in repr(given)
