"""Signatures: what botocore signs is believed, and nothing else is. botocore's signer is the oracle."""

from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from signing import NOW_S, signed

from daemon.http import sigv4
from daemon.http.sigv4 import Claim, Expired, Malformed, Request, Unsigned, Wrong

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ENDPOINT = "http://detectd.example:8080"


def request(method="GET", path="/things", query="", body=b"", **how):
    """As the server sees it, signed by botocore."""
    url = f"{ENDPOINT}{path}{'?' * bool(query)}{query}"
    headers = CIMultiDict(signed(method, url, "KEY", body, secret=SECRET, **how))
    parts = urlsplit(url)
    return Request(method, parts.path + "?" * bool(parts.query) + parts.query, headers, body)


def verdict(one, *, secret=SECRET, region="eu-west-1", now_s=NOW_S):
    """None: believed, and of KEY."""
    claim = sigv4.claimed(one)
    if not isinstance(claim, Claim):
        return claim
    flaw = sigv4.flaw(claim, one, secret, region=region, now_s=now_s)
    return flaw or (None if claim.key_id == "KEY" else claim)


def changed(one, **what):
    parts = {"method": one.method, "target": one.target, "headers": CIMultiDict(one.headers), "body": one.body}
    return Request(**{**parts, **what})


def with_header(one, name, value):
    headers = CIMultiDict(one.headers)
    headers[name] = value
    return changed(one, headers=headers)


# ---- whatever botocore signs ----

segments = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda s: s not in {".", ".."}
)
paths = st.lists(segments, min_size=1, max_size=4).map(
    lambda given: "/" + "/".join(quote(s, safe="-._~:") for s in given)
)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
pairs = st.lists(st.tuples(words.filter(bool), words), max_size=4)
queries = pairs.map(lambda given: "&".join(f"{quote(n, safe='-_.~')}={quote(v, safe='-_.~')}" for n, v in given))
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
headers = st.dictionaries(
    st.from_regex(r"\Ax-[a-z]{3,8}\Z").filter(lambda n: not n.startswith("x-amz")), values, max_size=3
)
methods = st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE"])
bodies = st.binary(max_size=60)


@given(methods, paths, queries, bodies, headers)
@settings(max_examples=300, deadline=None)
def test_what_botocore_signs_is_believed(method, path, query, body, named):
    assert verdict(request(method, path, query, body, headers=named)) is None


@given(methods, paths, queries, bodies, headers, st.data())
@settings(max_examples=300, deadline=None)
def test_one_byte_that_differs_is_one_too_many(method, path, query, body, named, data):
    one = request(method, path, query, body, headers=named)
    place = data.draw(st.sampled_from(["method", "target", "body", *one.headers]))
    other = mutated(one, place, data)
    assert other is None or verdict(other) is not None


def mutated(one, place, data):
    """One byte of a request replaced; None where that says the same: white space in a header, and unsigned ones."""
    if place in {"method", "target"}:
        text = getattr(one, place)
        return changed(one, **{place: swap(text, data)})
    if place == "body":
        return changed(one, body=swap(one.body.decode("latin-1"), data).encode("latin-1")) if one.body else None
    value = one.headers[place]
    other = swap(value, data) if value else "x"
    unsigned = place.lower() not in sigv4.claimed(one).signed_headers and place.lower() != "authorization"
    if other.split() == value.split() or unsigned:
        return None
    after = with_header(one, place, other)
    return None if sigv4.claimed(after) == sigv4.claimed(one) and place.lower() == "authorization" else after


def swap(text, data):
    at = data.draw(st.integers(0, len(text) - 1))
    new = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != text[at]))
    return text[:at] + new + text[at + 1 :]


def test_every_single_byte_of_one_request_counts():
    """All places of the target with all printable bytes, and all of the body: nothing left to chance."""
    one = request("PATCH", "/security-profiles/a%3Ab", "expectedVersion=7&x=%7E1", b'{"behaviors":[]}')
    believed = []
    for at in range(len(one.target)):
        for new in map(chr, range(33, 127)):
            if (
                new != one.target[at]
                and verdict(changed(one, target=one.target[:at] + new + one.target[at + 1 :])) is None
            ):
                believed.append((at, new))
    for at in range(len(one.body)):
        other = bytes([*one.body[:at], one.body[at] ^ 1, *one.body[at + 1 :]])
        believed += [("body", at)] * (verdict(changed(one, body=other)) is None)
    assert believed == []


# ---- the forms ----


def test_the_date_header_will_do_in_place_of_x_amz_date():
    one = request(headers={"Date": "x"})  # botocore then writes Date, and no X-Amz-Date
    assert "X-Amz-Date" not in one.headers
    assert verdict(one) is None
    late = with_header(one, "Date", one.headers["Date"].replace("-0000", "+0100"))
    assert verdict(late) is not None


def test_a_security_token_is_taken_when_it_is_signed():
    one = request(token="a-token")
    assert verdict(one) is None
    assert isinstance(verdict(with_header(one, "X-Amz-Security-Token", "other")), Wrong)
    assert isinstance(verdict(with_header(request(), "X-Amz-Security-Token", "smuggled")), Malformed)


def test_the_order_of_the_query_does_not_matter_and_a_missing_sign_counts_as_empty():
    url = f"{ENDPOINT}/things?b=2&a=3&a=1&flag"
    one = Request("GET", "/things?a=1&flag&a=3&b=2", CIMultiDict(signed("GET", url, "KEY", secret=SECRET)), b"")
    assert verdict(one) is None


@pytest.mark.parametrize("sent", ["arn=arn:aws:iot", "arn=arn%3Aaws:iot", "name=a b".replace(" ", "+")])
def test_a_query_that_is_sent_less_encoded_than_it_was_signed_is_believed(sent):
    """As clients do that sign the canonical form and leave the URL as the user wrote it (curl)."""
    canonical = "name=a%20b" if "name" in sent else "arn=arn%3Aaws%3Aiot"
    one = Request("GET", f"/x?{sent}", request(path="/x", query=canonical).headers, b"")
    assert verdict(one) is None


def test_white_space_in_a_header_is_folded_and_several_of_a_name_are_joined():
    one = request(headers={"X-Note": "  a   b\t c "})
    assert verdict(one) is None
    headers = CIMultiDict(request(headers={"X-Note": "a,b"}).headers)
    del headers["X-Note"]
    headers.add("X-Note", "a")
    headers.add("X-Note", " b ")
    assert verdict(changed(one, headers=headers)) is None


def test_a_stated_hash_of_the_payload_must_be_its():
    digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # of b"foo"
    one = request("POST", body=b"foo", headers={"X-Amz-Content-SHA256": digest})
    assert verdict(one) is None
    assert isinstance(verdict(changed(one, body=b"bar")), Wrong)


@pytest.mark.parametrize("stated", ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"])
def test_an_unsigned_payload_is_refused_however_well_the_rest_is_signed(stated):
    one = request("POST", body=b"foo", headers={"X-Amz-Content-SHA256": stated})
    assert "payload" in verdict(one).message


@pytest.mark.parametrize("path", ["/a//b", "//a", "/a/./b", "/a/../b", "/..", "http://detectd.example/a"])
def test_a_path_that_signers_would_rewrite_is_refused(path):
    one = request(path="/a/b")
    for signed_path in ("/a/b", "/b", "/a", "/"):
        assert "segments" in verdict(changed(request(path=signed_path), target=path)).message
    assert verdict(one) is None


# ---- when, where, and by whom ----


@pytest.mark.parametrize(("off_s", "is_good"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_a_signature_holds_for_five_minutes_either_way(off_s, is_good):
    found = verdict(request(), now_s=NOW_S + off_s)
    assert found is None if is_good else isinstance(found, Expired)


def test_the_same_request_may_come_again_within_its_time():
    one = request()
    assert [verdict(one), verdict(one)] == [None, None]


@pytest.mark.parametrize(
    ("how", "region"),
    [({"region": "us-east-1"}, "eu-west-1"), ({"service": "iotdata"}, "eu-west-1"), ({"service": "s3"}, "")],
)
def test_a_signature_for_elsewhere_is_wrong_and_says_what_the_scope_should_be(how, region):
    assert "scope should be" in verdict(request(**how), region=region).message


def test_without_a_region_of_our_own_any_will_do():
    assert verdict(request(region="us-east-1"), region="") is None


def test_another_secret_is_wrong_and_the_answer_tells_none_of_it():
    found = verdict(request(), secret="other")
    assert isinstance(found, Wrong)
    assert "other" not in found.message
    assert SECRET not in found.message


def test_a_scope_of_another_day_is_wrong():
    one = request()
    text = one.headers["Authorization"]
    day = sigv4.claimed(one).date
    assert "scope should be" in verdict(with_header(one, "Authorization", text.replace(day, "20200101"))).message


# ---- what is no signature ----


def test_a_request_without_one_is_unsigned():
    assert isinstance(verdict(Request("GET", "/", CIMultiDict(), b"")), Unsigned)


def test_a_presigned_url_is_refused_in_words():
    found = verdict(Request("GET", "/things?X-Amz-Algorithm=x&X-Amz-Signature=00", CIMultiDict(), b""))
    assert "signed URLs" in found.message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bearer x",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=KEY/20260921/eu-west-1/iot/aws4_request",
        "AWS4-HMAC-SHA1 {credential}, {names}, {signature}",
        "AWS4-HMAC-SHA256 {credential}, {names}",
        "AWS4-HMAC-SHA256 {credential}, {names}, {signature}, {signature}",
        "AWS4-HMAC-SHA256 {credential}, {names}, {names}, {signature}",
        "AWS4-HMAC-SHA256 {credential}/more, {names}, {signature}",
        "AWS4-HMAC-SHA256 Credential=KEY, {names}, {signature}",
        "AWS4-HMAC-SHA256 {credential}, {names};host, {signature}",
        "AWS4-HMAC-SHA256 {credential}, {names};, {signature}",
        "AWS4-HMAC-SHA256 {credential}, {names};absent, {signature}",
        "AWS4-HMAC-SHA256 {credential}, SignedHeaders=Host;X-Amz-Date, {signature}",
        "AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, {signature}",
        "AWS4-HMAC-SHA256 {credential}, SignedHeaders=x-amz-date, {signature}",
        "AWS4-HMAC-SHA256 {credential}, SignedHeaders=, {signature}",
        "AWS4-HMAC-SHA256 {credential}, {names}, Signature=00",
        "AWS4-HMAC-SHA256 {credential}, {names}, Signature=",
        "AWS4-HMAC-SHA256 {credential}, {names}, {signature}00",
        "AWS4-HMAC-SHA256 " + "x" * 9000,
        "\udcff\udcfe",
    ],
)
def test_an_authorization_of_another_form_is_malformed(text):
    one = request()
    credential, names, signature = one.headers["Authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(", ")
    filled = text.replace("{credential}", credential).replace("{names}", names).replace("{signature}", signature)
    assert isinstance(verdict(with_header(one, "Authorization", filled)), Malformed)


@pytest.mark.parametrize(
    "date",
    [
        "",
        "20260921T123000",
        "20269921T993000Z",
        "２０２６0921T123000Z",
        "yesterday",
        "Mon, 99 Foo 2026 99:99:99 GMT",
        "x" * 99,
        "Mon, 21 Sep 0001 00:00:00 +2359",
        "Mon, 21 Sep 9999 23:59:59 -2359",
    ],
)
def test_a_date_of_another_form_is_malformed(date):
    found = verdict(with_header(request(), "X-Amz-Date", date))
    assert isinstance(found, Malformed | Wrong | Expired)


@pytest.mark.parametrize("name", ["Authorization", "X-Amz-Date"])
def test_two_of_what_must_be_one_are_malformed(name):
    one = request()
    headers = CIMultiDict(one.headers)
    headers.add(name, one.headers[name])
    assert isinstance(verdict(changed(one, headers=headers)), Malformed)


def test_a_header_that_says_which_principal_must_be_signed():
    assert verdict(request(headers={"x-amzn-principal": "arn:aws:iot:eu-west-1:1:cert/x"})) is None
    assert isinstance(verdict(with_header(request(), "x-amzn-principal", "arn")), Malformed)


@given(
    st.text(max_size=60),
    st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=60)),
    st.binary(max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_judged_and_raises_nothing(target, named, body):
    one = Request("GET", target, CIMultiDict({**named, "Authorization": request().headers["Authorization"]}), body)
    assert verdict(one) is not None
