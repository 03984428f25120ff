"""Who is let in: roles that nest, AWS's own words for who is not, failures counted and slowed down, rotation."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict
from signing import NOW_S, SECRETS, settings, signed

from config.load import ConfigError
from config.model import NS, AccessKey, Http, Settings
from daemon.control.audit import Actor
from daemon.http.access import ADDRESSES_MAX, FAILURES_MAX, Access, Denied, Failures, Reason, Role, keys_of, network

URL = "http://detectd.example:8080/things"


class Clock:
    def __init__(self) -> None:
        self.ns = NOW_S * NS

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path, clock: Clock) -> Access:
    return Access(settings(tmp_path), clock)


def admit(access: Access, need: Role = "read", address: str = "192.0.2.7", headers: Any = None, **how: Any) -> Actor:
    if headers is None:
        headers = signed("GET", URL, **how)
    return access.admit("GET", "/things", CIMultiDict(headers), how.get("body", b""), address, need)


def refused(access: Access, need: Role = "read", address: str = "192.0.2.7", **how: Any) -> tuple[int, str, str]:
    with pytest.raises(Denied) as denied:
        admit(access, need, address, **how)
    return denied.value.status, denied.value.code, denied.value.message


MAY = {
    "READER": {"read"},
    "OPERATOR": {"read", "operate"},
    "ADMIN": {"read", "operate", "admin"},
}


@pytest.mark.parametrize("key", list(MAY))
@pytest.mark.parametrize("need", ["read", "operate", "admin"])
def test_roles_nest(access: Access, key: str, need: Role) -> None:
    if need in MAY[key]:
        assert admit(access, need, key=key) == Actor(key, "192.0.2.7")
    else:
        status, code, message = refused(access, need, key=key)
        assert (status, code) == (403, "AccessDeniedException")
        assert need in message
        assert access.denials[Reason.ROLE] == 1


UNSIGNED: Mapping[str, str] = {"Host": "detectd.example:8080"}
OF_OTHER_FORM = {**UNSIGNED, "Authorization": "Bearer x"}


@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ({"headers": UNSIGNED}, "MissingAuthenticationTokenException", Reason.MISSING),
        ({"headers": OF_OTHER_FORM}, "IncompleteSignatureException", Reason.MALFORMED),
        ({"key": "STRANGER"}, "UnrecognizedClientException", Reason.UNKNOWN_KEY),
        ({"secret": "guess"}, "InvalidSignatureException", Reason.SIGNATURE),
        ({"region": "us-east-1"}, "InvalidSignatureException", Reason.SIGNATURE),
        ({"service": "execute-api"}, "InvalidSignatureException", Reason.SIGNATURE),
        ({"now_s": NOW_S - 301}, "InvalidSignatureException", Reason.EXPIRED),
    ],
)
def test_who_is_not_let_in_hears_awss_code_and_is_counted(access: Access, how: Any, code: str, reason: Reason) -> None:
    status, said, message = refused(access, **how)
    assert (status, said) == (403, code)
    assert {name: count for name, count in access.denials.items() if count} == {reason: 1}
    assert not [secret for secret in SECRETS.values() if secret in message]


def test_an_expired_signature_says_so(access: Access) -> None:
    assert refused(access, now_s=NOW_S - 301)[2].startswith("Signature expired")


def test_an_unknown_key_is_unknown_whatever_else_is_wrong(access: Access) -> None:
    assert refused(access, key="STRANGER", now_s=NOW_S - 301, region="x")[1] == "UnrecognizedClientException"


def test_no_secret_shows_in_what_a_log_would_print(access: Access) -> None:
    shown = f"{access!r} {access._keys!r} {access.__dict__!r}"
    assert not [secret for secret in SECRETS.values() if secret in shown]


def test_without_a_region_of_our_own_any_will_do(tmp_path: Path, clock: Clock) -> None:
    assert admit(Access(settings(tmp_path, region="local"), clock), region="ap-south-1").who == "ADMIN"


# ---- open or not ----


def test_on_loopback_without_keys_everyone_may_everything(clock: Clock) -> None:
    access = Access(Settings(), clock)
    assert access.is_open
    assert access.admit("GET", "/", CIMultiDict(), b"", "127.0.0.1", "admin") == Actor("local", "127.0.0.1")
    assert access.admit_basic(CIMultiDict(), "127.0.0.1", "admin") == Actor("local", "127.0.0.1")


@pytest.mark.parametrize("http", [Http(listen="0.0.0.0:8080"), Http(behind_proxy=True)])
def test_elsewhere_nobody_may_anything_without_keys(http: Http, clock: Clock) -> None:
    """The configuration's check refuses these; should it fail to, this does not."""
    access = Access(Settings(http=http), clock)
    assert not access.is_open
    assert refused(access, headers=UNSIGNED)[1] == "MissingAuthenticationTokenException"
    assert refused(access)[1] == "UnrecognizedClientException"


# ---- rotation ----


def test_a_reload_takes_new_keys_and_drops_old_ones(access: Access, tmp_path: Path) -> None:
    (tmp_path / "NEW").write_text("n-secret")
    new = AccessKey(id="NEW", secret_file=tmp_path / "NEW", role="read")
    access.apply(keys_of(Settings(http=Http(access_keys=(new,)), account=settings(tmp_path).account)))
    assert admit(access, key="NEW", secret="n-secret").who == "NEW"
    assert refused(access, key="ADMIN")[1] == "UnrecognizedClientException"


def test_a_reload_reads_a_secret_anew_whose_file_has_the_same_name(access: Access, tmp_path: Path) -> None:
    same = settings(tmp_path)
    (tmp_path / "ADMIN").write_text("rotated\n")
    assert admit(access).who == "ADMIN"
    access.apply(keys_of(same))
    assert admit(access, secret="rotated").who == "ADMIN"
    assert refused(access)[1] == "InvalidSignatureException"


def test_a_reload_that_cannot_read_one_secret_changes_nothing(access: Access, tmp_path: Path) -> None:
    same = settings(tmp_path)
    (tmp_path / "READER").write_text("rotated")
    (tmp_path / "ADMIN").unlink()
    with pytest.raises(ConfigError):
        access.apply(keys_of(same))
    assert admit(access, key="READER").who == "READER"
    assert admit(access, key="ADMIN").who == "ADMIN"


def test_a_reload_may_open_and_close_the_door(access: Access, tmp_path: Path) -> None:
    access.apply(keys_of(Settings()))
    assert admit(access, headers=UNSIGNED).who == "local"
    access.apply(keys_of(settings(tmp_path)))
    assert refused(access, headers=UNSIGNED)[1] == "MissingAuthenticationTokenException"


# ---- failures ----


def test_an_address_that_keeps_failing_is_slowed_down_and_a_good_signature_passes_when_it_has_waited(
    access: Access, clock: Clock
) -> None:
    for _ in range(FAILURES_MAX):
        assert refused(access, secret="guess")[1] == "InvalidSignatureException"
    assert refused(access, secret="guess")[:2] == (400, "ThrottlingException")
    assert refused(access)[1] == "ThrottlingException", "a right guess must look like a wrong one"
    assert admit(access, address="192.0.2.8").who == "ADMIN", "others are not held off"
    clock.ns += NS
    assert admit(access).who == "ADMIN"
    assert admit(access).who == "ADMIN", "what is good costs nothing"
    assert refused(access, secret="guess")[1] == "InvalidSignatureException"
    assert refused(access, secret="guess")[1] == "ThrottlingException"
    assert access.denials[Reason.THROTTLED] == 3


@pytest.mark.parametrize("how", [{"key": "STRANGER"}, {"headers": OF_OTHER_FORM}, {"now_s": NOW_S - 999}])
def test_every_kind_of_failed_credentials_counts(access: Access, how: Any) -> None:
    for _ in range(FAILURES_MAX):
        refused(access, **how)
    assert refused(access, **how)[1] == "ThrottlingException"


def test_neither_a_missing_signature_nor_a_missing_role_slows_an_address_down(access: Access) -> None:
    """A probe that signs nothing, or a dashboard that may not change, must not lock out who shares its address."""
    for _ in range(3 * FAILURES_MAX):
        refused(access, headers=UNSIGNED)
        refused(access, "admin", key="READER")
    assert admit(access).who == "ADMIN"


def test_a_clock_that_steps_back_holds_nobody_off_for_the_step(access: Access, clock: Clock) -> None:
    for _ in range(FAILURES_MAX):
        refused(access, secret="guess")
    clock.ns -= 200 * NS
    assert refused(access)[1] == "ThrottlingException"
    clock.ns += 2 * NS
    assert admit(access).who == "ADMIN"


def test_the_table_of_failures_is_bounded_and_what_falls_out_is_counted() -> None:
    failures = Failures()
    for number in range(ADDRESSES_MAX + 10):
        failures.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", NOW_S * NS)
    assert (len(failures), failures.evicted) == (ADDRESSES_MAX, 10)


def test_what_has_recovered_falls_out_uncounted() -> None:
    failures = Failures(addresses_max=1)
    failures.add("192.0.2.1", 0)
    failures.add("192.0.2.2", 100 * NS)
    assert (len(failures), failures.evicted) == (1, 0)
    assert not failures.are_spent("192.0.2.2", 300 * NS)
    assert len(failures) == 0


def test_looking_up_an_address_that_never_failed_costs_no_place() -> None:
    failures = Failures()
    assert not failures.are_spent("192.0.2.1", 0)
    assert len(failures) == 0


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("x" * 99, "x" * 64),
    ],
)
def test_who_may_choose_among_many_addresses_is_one(address: str, name: str) -> None:
    assert network(address) == name


# ---- before the body, and HTTP Basic ----


def test_what_has_no_signature_to_look_at_is_refused_before_its_body_is_read(access: Access) -> None:
    for headers in (UNSIGNED, OF_OTHER_FORM):
        with pytest.raises(Denied):
            access.refuse_unread("POST", "/things", CIMultiDict(headers), "192.0.2.7")
    access.refuse_unread("GET", "/things", CIMultiDict(signed("GET", URL, secret="guess")), "192.0.2.7")


def basic(user: str, password: str) -> CIMultiDict[str]:
    return CIMultiDict({"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()})


def test_basic_takes_a_keys_id_and_secret(access: Access) -> None:
    assert access.admit_basic(basic("READER", "r-secret"), "192.0.2.7", "read") == Actor("READER", "192.0.2.7")
    assert access.admit_basic(basic("ADMIN", "a-secret"), "192.0.2.7", "read").who == "ADMIN"


@pytest.mark.parametrize(
    "headers",
    [
        basic("READER", "a-secret"),
        basic("READER", ""),
        basic("", ""),
        basic("STRANGER", "r-secret"),
        CIMultiDict({"Authorization": "Basic !!"}),
        CIMultiDict({"Authorization": "Basic /w=="}),
        CIMultiDict({"Authorization": "Basic"}),
        CIMultiDict([("Authorization", "Basic x"), ("Authorization", "Basic y")]),
        CIMultiDict(),
    ],
)
def test_basic_of_any_other_kind_is_401_and_counts_as_a_failure(access: Access, headers: CIMultiDict[str]) -> None:
    for expected in (*["UnrecognizedClientException"] * FAILURES_MAX, "ThrottlingException"):
        with pytest.raises(Denied) as denied:
            access.admit_basic(headers, "192.0.2.7", "read")
        assert denied.value.code == expected


def test_basic_has_roles_too(access: Access) -> None:
    with pytest.raises(Denied, match="needs admin"):
        access.admit_basic(basic("READER", "r-secret"), "192.0.2.7", "admin")
