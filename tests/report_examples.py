"""Reports for tests: strategies for good ones, in every spelling, and for ones that something happened to."""

import json
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import strategies as st

SHORT = {
    "header": "hed",
    "report_id": "rid",
    "version": "v",
    "metrics": "met",
    "custom_metrics": "cmet",
    "tcp_connections": "tc",
    "established_connections": "ec",
    "connections": "cs",
    "remote_addr": "rad",
    "local_port": "lp",
    "local_interface": "li",
    "listening_tcp_ports": "tp",
    "listening_udp_ports": "up",
    "ports": "pts",
    "port": "pt",
    "interface": "if",
    "total": "t",
    "network_stats": "ns",
    "bytes_in": "bi",
    "bytes_out": "bo",
    "packets_in": "pi",
    "packets_out": "po",
}
NUMBERS = ("temperature", "cpu_usage", "x", "a:b-c_d", "n" * 128)  # defined as `number` in the tests' schema

counts = st.integers(0, 1000) | st.integers(0, 10**18) | st.integers(0, 2**63 - 1)
interfaces = st.none() | st.sampled_from(["eth0", "lo", "0.0.0.0", "::", "", "wlan-with-a-longer-name", "sieben7"])


def maybe(**members: Any) -> Any:
    """An object with any of the members."""
    return st.fixed_dictionaries({}, optional=members)


ipv4 = st.integers(0, 2**32 - 1).map(lambda i: str(IPv4Address(i)))
groups = st.lists(st.sampled_from([0, 0, 0, 1, 0xFFFF, 0xDB8, 0xABCD]), min_size=8, max_size=8)
ipv6 = groups.map(lambda g: IPv6Address(b"".join(x.to_bytes(2) for x in g))) | st.integers(0, 2**128 - 1).map(
    IPv6Address
)
spelled6 = st.one_of(
    ipv6.map(str),
    ipv6.map(lambda a: str(a).upper()),
    ipv6.map(lambda a: a.exploded),
    ipv4.map(lambda a: f"::ffff:{a}"),
    ipv4.map(lambda a: f"64:ff9b::{a}"),
    ipv4.map(lambda a: f"1:2:3:4:5:6:{a}"),
)
ports = st.integers(0, 65535)
remotes = st.one_of(
    st.builds("{}:{}".format, ipv4, ports),
    st.builds("[{}]:{}".format, spelled6, ports),
    st.builds("{}:{}".format, spelled6, ports),
)
connections = st.builds(
    lambda remote, rest: {**rest, "remote_addr": remote},
    remotes,
    maybe(local_port=st.integers(0, 65535), local_interface=interfaces),
)
listening = maybe(
    ports=st.lists(
        st.builds(lambda port, rest: {**rest, "port": port}, st.integers(1, 65535), maybe(interface=interfaces)),
        max_size=6,
    ),
    total=counts,
)
numbers = st.one_of(
    st.integers(-(10**15), 10**15),
    st.floats(-1e6, 1e6).map(lambda x: round(x, 3)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.integers(-(10**30), 10**30),
)
plain_customs = st.dictionaries(
    st.sampled_from([*NUMBERS, "unknown", "list"]), numbers.map(lambda x: [{"number": x}]), max_size=4
)
any_customs = st.dictionaries(
    st.sampled_from([*NUMBERS, "list", "words", "hosts", "other"]),
    st.one_of(
        numbers.map(lambda x: [{"number": x}]),
        st.lists(numbers, max_size=3).map(lambda x: [{"number_list": x}]),
        st.lists(st.sampled_from(["sshd", "ntpd", "a b", "x/y.z", "ä"]), max_size=3).map(
            lambda x: [{"string_list": x}]
        ),
        st.lists(ipv4 | spelled6 | st.just("nowhere"), max_size=3).map(lambda x: [{"ip_list": x}]),
    ),
    max_size=4,
)
metrics = maybe(
    listening_tcp_ports=listening,
    listening_udp_ports=listening,
    network_stats=maybe(bytes_in=counts, bytes_out=counts, packets_in=counts, packets_out=counts),
    tcp_connections=maybe(established_connections=maybe(connections=st.lists(connections, max_size=6), total=counts)),
)
headers = st.fixed_dictionaries(
    {
        "report_id": st.integers(1, 2**63 - 1) | st.just(1795473623),
        "version": st.sampled_from(["1.0", "1.1", "12.345678901", "999999999.999999999", "0.0"]),
    }
)


def reports(customs: Any = plain_customs) -> Any:
    return st.one_of(
        st.fixed_dictionaries({"header": headers, "metrics": metrics, "custom_metrics": customs}),
        st.fixed_dictionaries({"header": headers, "metrics": metrics}),
        st.fixed_dictionaries({"header": headers, "custom_metrics": customs}),
    )


# Reports that the scanner accepts: what happens to them is then seen by both.
_few = st.integers(0, 9999)
tame = st.fixed_dictionaries(
    {
        "header": st.just({"report_id": 1795473623, "version": "1.0"}),
        "metrics": st.fixed_dictionaries(
            {
                "listening_tcp_ports": st.just({"ports": [{"port": 22, "interface": "eth0"}, {"port": 443}]}),
                "network_stats": st.fixed_dictionaries({"bytes_in": _few, "bytes_out": _few}),
                "tcp_connections": connections.map(
                    lambda c: {"established_connections": {"connections": [c], "total": 7}}
                ),
            }
        ),
        "custom_metrics": st.floats(-1e6, 1e6).map(lambda x: {"x": [{"number": round(x, 3)}]}),
    }
)


@st.composite
def spelled(draw: Any, report: Any) -> Any:
    """The report with some keys short, and its members in any order."""
    tree = draw(report)
    how = draw(st.randoms(use_true_random=False))
    share = draw(st.sampled_from([0.0, 1.0, 0.5]))

    def walk(node: Any, named: bool) -> Any:
        if isinstance(node, dict):
            members = list(node.items())
            how.shuffle(members)
            return {
                SHORT.get(key, key) if not named and how.random() < share else key: walk(value, key == "custom_metrics")
                for key, value in members
            }
        return [walk(item, False) for item in node] if isinstance(node, list) else node

    return walk(tree, False)


@st.composite
def texts(draw: Any, report: Any) -> bytes:
    """A report as JSON, with insignificant whitespace here and there."""
    tree = draw(spelled(report))
    layout = draw(
        st.sampled_from([(None, (",", ":")), (None, (", ", ": ")), (2, (",", ": ")), ("\t", (" ,\r\n", " : "))])
    )
    text = json.dumps(tree, indent=layout[0], separators=layout[1], ensure_ascii=draw(st.booleans()))
    return (draw(st.sampled_from(["", " ", "\n\n"])) + text + draw(st.sampled_from(["", " \n"]))).encode()


@st.composite
def damaged(draw: Any, text: Any) -> bytes:
    """A report that something happened to: bytes changed, cut out, doubled, or the end lost."""
    data = bytearray(draw(text))
    for _ in range(draw(st.sampled_from([1, 1, 1, 1, 2, 3]))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 5)):
            case 0:
                data[at] = draw(st.integers(0, 255) | st.sampled_from(b'0123456789abcdefABCDEF:.,-[]{}" '))
            case 1:
                data[at : at + 1] = draw(
                    st.sampled_from([b"", b'"', b",", b":", b"{", b"}", b"[", b"]", b"0", b"-", b".", b"e", b" "])
                )
            case 2:
                del data[at : at + draw(st.integers(1, 12))]
            case 3:
                piece = bytes(data[at : at + draw(st.integers(1, 40))])
                data[at:at] = piece
            case 4:
                del data[at:]
            case 5:
                data[at:at] = draw(
                    st.sampled_from([b"\\", b"\x00", b"\xc3\xa4", b"\x1f", b"\x7f", b"null", b"true", b"1e5", b"00"])
                )
    return bytes(data)
