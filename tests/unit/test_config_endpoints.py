"""Daemon settings: who may reach what, brokers, receivers, bounds, and the files that are named."""

import json

import pytest

from actors.metrics import kinds
from config.address import Address, parse_address
from config.load import ConfigError, load_text

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = [{"id": "A", "secret_file": "key"}]
TLS = {"cert": "cert.pem", "key": "key.pem"}
CA = {**TLS, "ca": "ca.pem"}
ON, OFF = {"identity": "on"}, {"identity": "off"}
SENSOR = [{"name": "s", "listen": "127.0.0.1:1884", "upstream": "mqtt://h:1883"}]
SIGNED = "access_keys, so that requests are signed"
BY_TLS = "tls (or behind_proxy: true, where a proxy in front speaks it)"


@pytest.fixture
def folder(tmp_path):
    for name, content in {"key": "x", "hook": WHSEC, "cert.pem": "c", "key.pem": "k", "ca.pem": "c"}.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def check(folder, settings):
    """([(path, message)] of errors, the same of warnings)."""
    try:
        warnings = load_text(json.dumps(settings), file=folder / "detectd.json", kinds=kinds()).warnings
    except ConfigError as error:
        return [(each.path, each.message) for each in error.problems], []
    return [], [(each.path, each.message) for each in warnings]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65535)),
        ("broker.example:1883", Address("broker.example", 1883)),
        ("8080", None),
        (":8080", None),
        ("127.0.0.1", None),
        ("127.0.0.1:65536", None),
        ("127.0.0.1:-1", None),
        ("127.0.0.1:８", None),
        ("::1:8080", None),
        ("[127.0.0.1]:80", None),
        ("http://127.0.0.1:80", None),
        ("a b:80", None),
        ("", None),
    ],
)
def test_an_address_is_a_host_and_a_port(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
    ],
)
def test_only_loopback_is_out_of_reach_of_others(host, local):
    assert Address(host, 1).is_loopback == local


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        ({"http": {"listen": "0.0.0.0:8080"}}, ["http.listen"]),
        ({"http": {"listen": "0.0.0.0:8080", "access_keys": KEY}}, ["http.listen"]),
        ({"http": {"listen": "0.0.0.0:8080", "tls": TLS}}, ["http.listen"]),
        ({"http": {"listen": "0.0.0.0:8080", "behind_proxy": True}}, ["http.listen"]),
        ({"http": {"listen": "0.0.0.0:8080", "access_keys": KEY, "tls": TLS}}, []),
        ({"http": {"listen": "[::]:8080", "access_keys": KEY, "behind_proxy": True}}, []),
        ({"http": {"listen": "[::1]:8080"}}, []),
        ({"http": {"listen": "[::1]:8080", "access_keys": KEY}}, []),
        ({"http": {"behind_proxy": True}}, ["http.behind_proxy"]),
        ({"http": {"behind_proxy": True, "access_keys": KEY}}, []),
        ({"broker": {"embedded": {"mqtt": "0.0.0.0:1883"}}}, ["broker.embedded.mqtt"]),
        ({"broker": {"embedded": {"mqtt": "0.0.0.0:8883", "tls": TLS}}}, []),
        ({"broker": {"embedded": {"mqtt": "0.0.0.0:8883", "tls": TLS, "sensor": False}}}, ["broker.embedded.mqtt"]),
        ({"broker": {"embedded": {"mqtt": "0.0.0.0:8883", "tls": CA, "sensor": False}}}, []),
        ({"broker": {"embedded": {"mqtt": "0.0.0.0:8883", "tls": TLS}, "devices": OFF}}, ["broker.devices.identity"]),
        ({"broker": {"embedded": {"mqtt": "0.0.0.0:8883", "tls": CA}, "devices": OFF}}, ["broker.devices.identity"]),
        ({"broker": {"devices": OFF}}, []),
        ({"broker": {"devices": ON}}, []),
        ({"broker": {"embedded": {"sensor": False}, "devices": ON}}, ["broker.devices.identity"]),
        ({"broker": {"nats": {"url": "nats://h:4222"}, "devices": ON}}, ["broker.devices.identity"]),
        ({"broker": {"nats": {"url": "nats://h:4222"}, "sensors": SENSOR, "devices": ON}}, []),
        ({"broker": {"sensors": [{**SENSOR[0], "listen": "0.0.0.0:8884"}]}}, ["broker.sensors[0].listen"]),
        ({"broker": {"sensors": [{**SENSOR[0], "listen": "0.0.0.0:8884", "tls": TLS}]}}, []),
        ({"broker": {"embedded": {"mqtt": "0.0.0.0:8883", "tls": {**TLS, "ca": "ca.pem"}}}}, []),
        ({"broker": {"embedded": {"nats": "0.0.0.0:4222"}}}, ["broker.embedded.nats"]),
    ],
)
def test_what_others_can_reach_is_guarded(folder, settings, paths):
    errors, _ = check(folder, settings)
    assert [path for path, _ in errors] == paths


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        (
            {},
            f"{SIGNED} and {BY_TLS}",
        ),
        ({"access_keys": KEY}, BY_TLS),
        ({"tls": TLS}, SIGNED),
    ],
)
def test_the_refusal_of_http_off_loopback_says_what_is_missing(folder, more, missing):
    ((_, message),), _ = check(folder, {"http": {"listen": "0.0.0.0:8080", **more}})
    assert message == f"0.0.0.0:8080 is off loopback: give {missing}"


@pytest.mark.parametrize(
    ("embedded", "missing"),
    [
        ({}, "give tls, and devices their credentials (detectd devices add), or tls with ca"),
        ({"tls": TLS, "sensor": False}, "give tls with ca: without the sensor nobody asks devices for a password"),
    ],
)
def test_the_refusal_of_open_mqtt_says_what_is_missing(folder, embedded, missing):
    ((_, message),), _ = check(folder, {"broker": {"embedded": {"mqtt": "0.0.0.0:1883", **embedded}}})
    assert message == f"0.0.0.0:1883 is off loopback: {missing}"


@pytest.mark.parametrize("thing", ["", "*x", "a*b*", "+", "#", "a/b", "site/*", "+*"])
def test_a_gateway_speaks_for_names_and_beginnings_of_names(folder, thing):
    (problem,), _ = check(folder, {"broker": {"devices": {"gateways": {"g": ["t1", "site-*", "*", thing]}}}})
    assert problem[0] == "broker.devices.gateways.g[3]"


@pytest.mark.parametrize(
    ("client", "path", "message"),
    [
        ({"pattern": "(", "thing": "t"}, "clients[0].pattern", "no regular expression"),
        ({"pattern": "(a)", "thing": r"\2"}, "clients[0].thing", "no group 2"),
        ({"pattern": "(a)", "thing": r"\11"}, "clients[0].thing", "no group 11"),
        ({"pattern": "(a)", "thing": r"\0"}, "clients[0].thing", "from 1"),
        ({"pattern": "(a)", "thing": r"\g<1>"}, "clients[0].thing", "from 1"),
        ({"pattern": "a", "thing": ""}, "clients[0].thing", "is empty"),
        ({"pattern": "a", "thing": "a/+"}, "clients[0].thing", "none of + # /"),
    ],
)
def test_a_thing_that_no_match_can_make_is_refused(folder, client, path, message):
    (problem,), _ = check(folder, {"clients": [client]})
    assert problem[0] == path
    assert message in problem[1]


def test_a_thing_is_made_of_the_groups_of_a_pattern(folder):
    assert check(folder, {"clients": [{"pattern": r"(\w+)-(\d+)", "thing": r"\1.\2"}]}) == ([], [])


def bridge(**more):
    return {"broker": {"bridges": [{"name": "b", "url": "mqtts://broker.example:8883", **more}]}}


def webhook(**more):
    return {"receivers": {"webhooks": [{"name": "w", "url": "https://r.example/hook", "secret_file": "hook", **more}]}}


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        ({"account": {"id": "1"}}, "account.id", "12 digits"),
        ({"account": {"region": "EU West"}}, "account.region", "a-z, 0-9 and -"),
        ({"data_dir": "key"}, "data_dir", "is no directory"),
        ({"http": {"listen": "8080"}}, "http.listen", "like 127.0.0.1:8080 or [::1]:8080"),
        ({"http": {"access_keys": KEY * 2}}, "http.access_keys[1].id", '"A" is defined a second time'),
        ({"http": {"access_keys": [{**KEY[0], "id": "a/b"}]}}, "http.access_keys[0].id", "must be 1 to 128"),
        ({"http": {"tls": {**TLS, "cert": "none.pem"}}}, "http.tls.cert", "there is no file"),
        (
            {"http": {"access_keys": [{"id": "A", "secret_file": "none"}]}},
            "http.access_keys[0].secret_file",
            "there is no such secret file",
        ),
        (
            {"broker": {"embedded": {}, "nats": {"url": "nats://h:4222"}}},
            "broker.nats",
            "embedded and nats exclude each other",
        ),
        ({"broker": {"embedded": {"mqtt": "x"}}}, "broker.embedded.mqtt", "is an address like"),
        ({"broker": {"embedded": {"sync_interval_s": -1}}}, "broker.embedded.sync_interval_s", "at least 0"),
        ({"broker": {"nats": {"url": "http://h"}}}, "broker.nats.url", "nats://host:4222"),
        ({"broker": {"nats": {"url": "nats://h:4222,"}}}, "broker.nats.url", "nats://host:4222"),
        ({"broker": {"nats": {"url": "nats://u:hunter2@h:4222"}}}, "broker.nats.url", "credentials_file"),
        (bridge(name="a.b"), "broker.bridges[0].name", "must be 1 to 64"),
        (bridge(url="https://h"), "broker.bridges[0].url", "url is like mqtt://host:1883"),
        (bridge(url="mqtt://h:99999"), "broker.bridges[0].url", "url is like"),
        (bridge(url="mqtt://"), "broker.bridges[0].url", "url is like"),
        (bridge(url="mqtts://u:hunter2@h"), "broker.bridges[0].url", "password_file"),
        (bridge(prefix="$aws/"), "broker.bridges[0].prefix", "topic levels"),
        (bridge(prefix="a/+"), "broker.bridges[0].prefix", "topic levels"),
        (bridge(client_id=""), "broker.bridges[0].client_id", "1 to 128 bytes"),
        (bridge(password_file="key"), "broker.bridges[0].password_file", "no password without a username"),
        (bridge(username="u", password_file="none"), "broker.bridges[0].password_file", "no such secret file"),
        (bridge(cert="cert.pem"), "broker.bridges[0].cert", "go together"),
        (bridge(url="mqtt://h", ca="ca.pem"), "broker.bridges[0].ca", "there is no TLS"),
        (bridge(ca="none.pem"), "broker.bridges[0].ca", "there is no file"),
        (webhook(name="a b"), "receivers.webhooks[0].name", "must be 1 to 64"),
        (webhook(url="ftp://h"), "receivers.webhooks[0].url", "like https://host/path"),
        (webhook(url="https:///x"), "receivers.webhooks[0].url", "like https://host/path"),
        (webhook(timeout_s=0), "receivers.webhooks[0].timeout_s", "more than 0 and at most 300"),
        (webhook(secret_file="key"), "receivers.webhooks[0].secret_file", "is whsec_ and base64"),
        ({"aws": {"endpoint_urls": {"sns": "sns:5000"}}}, "aws.endpoint_urls.sns", "like https://host:port"),
        ({"log": {"max_age_s": 0}}, "log.max_age_s", "more than 0"),
        ({"log": {"max_bytes": 1000}}, "log.max_bytes", "range[1048576,"),
        ({"log": {"stream": "a.b"}}, "log.stream", "must be 1 to 64"),
        ({"checkpoint": {"every_s": 0}}, "checkpoint.every_s", "more than 0"),
        ({"limits": {"report_interval_s": -1}}, "limits.report_interval_s", "at least 0"),
        ({"limits": {"grace_s": 1e10}}, "limits.grace_s", "at most 1e+09"),
        ({"limits": {"silence_s": 0}}, "limits.silence_s", "more than 0"),
        ({"limits": {"population_min": 0}}, "limits.population_min", "range[1,"),
        ({"limits": {"payload_bytes_max": 10**6}}, "limits.payload_bytes_max", "range[1,262144]"),
        ({"limits": {"things_max": 0}}, "limits.things_max", "range[1,"),
    ],
)
def test_a_setting_that_can_not_be_is_refused(folder, settings, path, message):
    errors, _ = check(folder, settings)
    assert [where for where, _ in errors] == [path]
    assert message in errors[0][1]
    assert "hunter2" not in errors[0][1]


def test_a_grace_that_is_shorter_than_sources_gather_is_warned_about(folder):
    errors, [(path, message)] = check(folder, {"limits": {"grace_s": 1}})
    assert (errors, path) == ([], "limits.grace_s")
    assert "come late" in message


@pytest.mark.parametrize(
    "settings",
    [
        bridge(),
        bridge(url="ws://h/mqtt", prefix="tenants/a/$aws", username="u"),
        bridge(url="mqtts://h", username="u", password_file="key", ca="ca.pem", cert="cert.pem", key="key.pem"),
        webhook(),
        webhook(url="http://[::1]:9000/", secret_file=None),
        {"broker": {"nats": {"url": "nats://n1:4222, tls://n2:4222", "credentials_file": "key"}}},
        {"limits": {"report_interval_s": 0, "grace_s": 1.5}},
        {"log": {"max_bytes": 1048576}},
    ],
)
def test_a_setting_that_can_be_is_good(folder, settings):
    assert check(folder, settings) == ([], [])


def test_names_of_bridges_and_webhooks_are_unique(folder):
    bridges = bridge()["broker"]["bridges"] * 2
    webhooks = webhook()["receivers"]["webhooks"] * 2
    errors, _ = check(folder, {"broker": {"bridges": bridges}, "receivers": {"webhooks": webhooks}})
    assert [path for path, _ in errors] == ["broker.bridges[1].name", "receivers.webhooks[1].name"]


def test_a_webhook_secret_may_be_two_while_one_takes_the_place_of_the_other(folder):
    (folder / "hook").write_text(f"{WHSEC}\n{WHSEC}\n")
    assert check(folder, webhook()) == ([], [])


def test_a_short_webhook_secret_is_warned_about(folder):
    (folder / "hook").write_text("whsec_c2hvcnQ=")
    errors, warnings = check(folder, webhook())
    assert errors == []
    assert [(path, "24 to 64 bytes" in message) for path, message in warnings] == [
        ("receivers.webhooks[0].secret_file", True)
    ]


def test_an_unsigned_webhook_to_elsewhere_is_warned_about(folder):
    _, warnings = check(folder, webhook(secret_file=None))
    assert [path for path, _ in warnings] == ["receivers.webhooks[0].url"]


def test_a_secret_that_others_can_read_warns_and_is_taken(folder):
    (folder / "key").chmod(0o644)
    errors, warnings = check(folder, {"http": {"access_keys": KEY}})
    assert errors == []
    assert [(path, "mode 0644" in message) for path, message in warnings] == [("http.access_keys[0].secret_file", True)]


@pytest.mark.parametrize("secret", ["a", "hunter2 with spaces", "ä" * 100])
def test_any_access_secret_that_is_not_empty_is_good(folder, secret):
    (folder / "key").write_text(f"{secret}\n")
    assert check(folder, {"http": {"access_keys": KEY}}) == ([], [])


def test_no_problem_shows_a_secret(folder):
    (folder / "hook").write_text("hunter2-is-no-whsec")
    errors, _ = check(folder, webhook())
    assert len(errors) == 1
    assert "hunter2" not in str(errors)
