"""From a request's bytes to an operation and its parameters: routes, labels, queries, headers, bodies."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from botocore.model import ServiceModel
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from daemon.http.aws import model, request, route
from daemon.http.aws.members import Fault
from daemon.http.aws.model import Operation

STRING, PART = {"shape": "Text"}, {"location": "uri", "locationName": "name"}
SHAPES: dict[str, Any] = {
    "Text": {"type": "string"},
    "Count": {"type": "integer", "min": 1, "max": 250},
    "Flag": {"type": "boolean"},
    "Texts": {"type": "list", "member": STRING, "min": 1, "max": 2},
    "Named": {"type": "structure", "required": ["who"], "members": {"who": STRING | PART}},
    "Full": {
        "type": "structure",
        "required": ["who", "token"],
        "members": {
            "who": STRING | PART,
            "most": {"shape": "Count", "location": "querystring", "locationName": "max"},
            "deep": {"shape": "Flag", "location": "querystring", "locationName": "deep"},
            "keys": {"shape": "Texts", "location": "querystring", "locationName": "key"},
            "mark": STRING | {"location": "header", "locationName": "x-mark"},
            "token": STRING | {"locationName": "Token"},
            "note": STRING,
        },
    },
    "Body": {"type": "structure", "required": ["note"], "members": {"note": STRING}},
    "Paid": {
        "type": "structure",
        "required": ["who", "all"],
        "members": {"who": STRING | PART, "all": {"shape": "Body"}},
        "payload": "all",
    },
}
URIS = {
    "Make": ("POST", "/things/{name}", "Full"),
    "Special": ("POST", "/things/special", "Named"),
    "Look": ("GET", "/things/{name}", "Named"),
    "Parts": ("GET", "/things/{name}/parts", "Named"),
    "Deep": ("GET", "/things/special/deep", "Named"),
    "Rest": ("GET", "/rest/{name+}", "Named"),
    "Pay": ("PUT", "/things/{name}", "Paid"),
}


@cache
def operations() -> Mapping[str, Operation]:
    described = {
        name: {"name": name, "http": {"method": method, "requestUri": uri}, "input": {"shape": shape}}
        for name, (method, uri, shape) in URIS.items()
    }
    service = ServiceModel({"metadata": {}, "operations": described, "shapes": SHAPES}, "test")
    return {name: model.operation(service.operation_model(name)) for name in URIS}


def found(method: str, path: str) -> tuple[str, Mapping[str, str]] | None:
    one = route.find(route.tree(operations().values()), method, path)
    return one and (one[0].name, one[1])


def make(query: str = "", body: bytes = b'{"Token": "t"}', label: str = "n", headers: Mapping[str, str] = {}) -> Any:
    return request.parameters(operations()["Make"], {"name": label}, query, CIMultiDict(headers), body)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/things/a", ("Look", {"name": "a"})),
        ("GET", "/things/special", ("Look", {"name": "special"})),  # there is no other GET
        ("POST", "/things/special", ("Special", {})),
        ("POST", "/things/specials", ("Make", {"name": "specials"})),
        ("GET", "/things/special/parts", ("Parts", {"name": "special"})),  # back out of the literal
        ("GET", "/things/special/deep", ("Deep", {})),
        ("GET", "/things/a%2Fb", ("Look", {"name": "a%2Fb"})),
        ("GET", "/things/", ("Look", {"name": ""})),
        ("GET", "/rest/a/b//c", ("Rest", {"name": "a/b//c"})),
        ("GET", "/rest/a", ("Rest", {"name": "a"})),
        ("GET", "/rest", None),
        ("GET", "/things", None),
        ("GET", "/things/a/", None),
        ("GET", "/things/a/parts/b", None),
        ("DELETE", "/things/a", None),
        ("get", "/things/a", None),
        ("GET", "", None),
        ("GET", "/", None),
        ("GET", "//things/a", None),
        ("GET", "/Things/a", None),
        ("GET", "/{name}", None),
    ],
)
def test_a_path_leads_to_one_operation_or_to_none(method: str, path: str, expected: Any) -> None:
    assert found(method, path) == expected


@given(st.sampled_from(["GET", "POST", "PUT"]), st.text("/things{}aceplrt+%", max_size=40))
def test_any_path_is_looked_up(method: str, path: str) -> None:
    assert found(method, path) is None or path.startswith(("/things/", "/rest/"))


@given(st.text(min_size=1))
def test_a_label_is_decoded_after_the_path_is_cut(text: str) -> None:
    from urllib.parse import quote  # noqa: PLC0415

    one = found("GET", f"/things/{quote(text, safe='')}")
    assert one is not None
    assert one[0] == "Look"
    assert request.parameters(operations()["Look"], one[1], "", CIMultiDict(), b"") == {"who": text}


def test_each_member_comes_from_its_place() -> None:
    body = b'{"Token": "t", "note": "\\u00fc"}'
    assert make("max=7&deep=TRUE&key=a&key=b+c&x-id=Make", body, "a%3Ab", {"X-Mark": "m"}) == {
        "who": "a:b", "most": 7, "deep": True, "keys": ["a", "b c"], "mark": "m", "token": "t", "note": "ü",
    }  # fmt: skip


def test_what_is_null_or_not_there_is_absent() -> None:
    assert make(body=b' {"Token": "t", "note": null}\n') == {"who": "n", "token": "t"}


def test_a_payload_is_the_whole_body() -> None:
    pay = operations()["Pay"]
    assert request.parameters(pay, {"name": "n"}, "", CIMultiDict(), b'{"note": "x"}') == {
        "who": "n", "all": {"note": "x"},
    }  # fmt: skip
    for body, words in ((b"{}", "note: is required"), (b"", "all: is required"), (b'{"all": {}}', "all: is not")):
        with pytest.raises(Fault, match=f"^{words}"):
            request.parameters(pay, {"name": "n"}, "", CIMultiDict(), body)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"body": b""}, "token: is required"),
        ({"body": b'{"Token": null}'}, "token: is required"),
        ({"body": b'{"token": "t"}'}, "token: is not a member of the request"),
        ({"body": b'{"Token": "t", "who": "x"}'}, "who: is not a member"),  # of the path, so not of the body
        ({"body": b"[]"}, "the body is not a JSON object"),
        ({"body": b"null"}, "the body is not a JSON object"),
        ({"body": b'{"Token": "t"'}, "the body is not JSON"),
        ({"body": b'{"Token": "t"} {}'}, "the body is not JSON"),
        ({"body": b"\xff"}, "the body is not JSON"),
        ({"body": b'{"Token": "\xff"}'}, "the body is not JSON"),
        ({"body": b'{"Token": "\\ud800"}'}, "the body is not JSON"),
        ({"body": b'{"Token": NaN}'}, "the body is not JSON"),
        ({"body": b'{"Token": 1e999}'}, "the body is not JSON"),
        ({"body": b'{"Token": ' + b"[" * 500_000}, "the body is not JSON"),
        ({"body": b'{"Token": ' + b'{"a":' * 500_000}, "the body is not JSON"),
        ({"label": "%ff"}, "who: is not UTF-8"),
        ({"label": "\udcff"}, "who: is not valid Unicode"),
        ({"query": "max=0"}, "most: must be from 1"),
        ({"query": "max="}, "most: must be a whole number"),
        ({"query": "max"}, "most: must be a whole number"),
        ({"query": "max=1&max=1"}, "most: is given more than once"),
        ({"query": "most=1"}, "most: is not a query parameter"),
        ({"query": "deep=1"}, "deep: must be true or false"),
        ({"query": "key=a&key=b&key=c"}, "keys: must have at most 2"),
        ({"query": "Token=t"}, "Token: is not a query parameter"),
        ({"query": "x%ff=1"}, "the query string can't be read"),
        ({"query": "&".join(f"a{n}=1" for n in range(501))}, "the query string can't be read"),
        ({"query": "y" * 8000 + "=1"}, "y"),
    ],
)
def test_what_is_wrong_is_told_by_its_name(how: dict[str, Any], words: str) -> None:
    with pytest.raises(Fault) as caught:
        make(**how)
    assert str(caught.value).startswith(words)
    assert len(str(caught.value)) < 200


@given(st.binary(max_size=60), st.text("maxdeepkey=&%+;1f", max_size=40))
def test_whatever_comes_is_read_or_refused(body: bytes, query: str) -> None:
    try:
        assert make(query, body)["who"] == "n"
    except Fault:
        pass
