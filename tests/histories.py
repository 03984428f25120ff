"""Random rules and random histories for them: what `hypothesis` draws, small enough that every verdict is common."""

from typing import Any

from builders import START, Reading, Said, behavior, numbered, profile, rules
from hypothesis import strategies as st

from config.model import NS, Behavior, Rules

THINGS = ["a", "b", "c", "d", "e"]
GROUPS = [{"g1": ["a", "b"], "g2": ["c"]}, {"g1": ["a"], "g2": ["b", "c"]}, {"g1": ["a", "c"], "g2": ["c", "e"]}]
REGISTERED = [["d"], [], ["d", "e"]]
TARGETS = [
    ["all/things"], ["all/registered-things"], ["all/unregistered-things"], ["thinggroup/g1"], ["thinggroup/g2"],
    ["thinggroup/g1", "thinggroup/g2"], ["thinggroup/site"], ["thinggroup/g1", "all/unregistered-things"],
]  # fmt: skip
CUSTOM = {"load": "number", "temps": "number-list", "services": "string-list", "dns": "ip-address-list"}
NUMERIC = ["less-than", "less-than-equals", "greater-than", "greater-than-equals"]
STATISTICS = ["p0", "p0.1", "p10", "p50", "p90", "p99.9", "p100"]
DURATIONS = [7, 300, 600, 3600]
ADDRESSES = ["192.0.2.1", "192.0.2.200", "10.0.0.1", "2001:db8::1", "::1"]
CIDRS = ["192.0.2.0/25", "10.1.2.3/8", "2001:db8::/32", "::/0", "0.0.0.0/0", "::ffff:192.0.2.0/120", "192.0.2.200"]
DELTA_OF = ["aws:all-bytes-out", "aws:all-bytes-in", "aws:all-packets-out"]  # by profile: sums are kept by metric

consecutive = st.sampled_from([None, 1, 2, 3])


@st.composite
def behaviors(draw: st.DrawFn, number: int, delta: str) -> Behavior:
    """A behavior of any kind; its name is one of a few, so that changes meet it again."""
    shared: dict[str, Any] = {"name": f"b{number}", "alarm": draw(consecutive), "clear": draw(consecutive)}
    shared["suppress"] = draw(st.sampled_from([None, True]))
    kind = draw(
        st.sampled_from(["delta", "snapshot", "number", "percentile", "ports", "addresses", "words", "numbers"])
    )
    numeric, duration = draw(st.sampled_from(NUMERIC)), draw(st.sampled_from(DURATIONS))
    match kind:
        case "delta":
            return behavior(delta, numeric, draw(st.integers(0, 12)), duration=duration, **shared)
        case "snapshot":
            metric = draw(st.sampled_from(["aws:num-listening-tcp-ports", "aws:num-established-tcp-connections"]))
            return behavior(metric, numeric, draw(st.integers(0, 3)), **shared)
        case "number":
            return behavior("load", numeric, draw(st.sampled_from([-1.5, 0.0, 2.0])), **shared)
        case "percentile":
            metric = draw(st.sampled_from([delta, "load", "aws:num-listening-tcp-ports"]))
            return behavior(metric, numeric, duration=duration, statistic=draw(st.sampled_from(STATISTICS)), **shared)
        case "ports":
            operator = draw(st.sampled_from(["in-port-set", "not-in-port-set"]))
            return behavior("aws:listening-tcp-ports", operator, draw(some([22, 80, 443])), **shared)
        case "addresses":
            operator = draw(st.sampled_from(["in-cidr-set", "not-in-cidr-set"]))
            metric = draw(st.sampled_from(["aws:destination-ip-addresses", "dns"]))
            return behavior(metric, operator, draw(some(CIDRS)), **shared)
        case "words":
            return behavior(
                "services", draw(st.sampled_from(["in-set", "not-in-set"])), draw(some(["x", "y"])), **shared
            )
    return behavior("temps", draw(st.sampled_from(["in-set", "not-in-set"])), draw(some([-1.0, 0.0, 2.5])), **shared)


def some(elements: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(elements), min_size=1, max_size=3, unique=True)


@st.composite
def rule_sets(draw: st.DrawFn) -> Rules:
    profiles = []
    for number in range(draw(st.integers(1, 3))):
        of = [draw(behaviors(n, DELTA_OF[number])) for n in range(draw(st.integers(1, 3)))]
        profiles.append(profile(*of, name=f"p{number}", targets=draw(st.sampled_from(TARGETS))))
    return rules(
        *profiles, custom=CUSTOM, things=draw(st.sampled_from(REGISTERED)),
        groups={"site": [], **draw(st.sampled_from(GROUPS))}, parents={"g1": "site"},
        population_min=draw(st.sampled_from([1, 2, 3])), durations="any",
        silence_s=draw(st.sampled_from([172_800.0, 172_800.0, 600.0])),
    )  # fmt: skip


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy, strategy)


readings = st.builds(
    Reading,
    bytes_in=maybe(st.integers(0, 10)),
    bytes_out=maybe(st.integers(0, 10)),
    packets_out=maybe(st.integers(0, 10)),
    tcp=maybe(st.lists(st.sampled_from([22, 80, 443]), max_size=3).map(tuple)),
    tcp_total=maybe(st.integers(0, 4)),
    addresses=maybe(st.lists(st.sampled_from(ADDRESSES), max_size=2).map(tuple)),
    custom=maybe(
        st.fixed_dictionaries(
            {},
            optional={
                "load": st.tuples(st.just("number"), st.sampled_from([-2.0, -1.5, 0.0, 1.0, 2.0, 3.5])),
                "temps": st.tuples(
                    st.just("number-list"), st.lists(st.sampled_from([-1.0, 0.0, 2.5, 7.0]), max_size=2).map(tuple)
                ),
                "services": st.tuples(
                    st.just("string-list"), st.lists(st.sampled_from(["x", "y", "z"]), max_size=2).map(tuple)
                ),
                "dns": st.tuples(
                    st.just("ip-address-list"), st.lists(st.sampled_from(ADDRESSES), max_size=2).map(tuple)
                ),
            },
        )
    ),
)

HOUR = 3600 * NS
usual = st.sampled_from([0, 1, 3 * NS, 7 * NS, 284 * NS, 285 * NS, 300 * NS, 299 * NS, 600 * NS, -5 * NS, -400 * NS])
seldom = st.sampled_from(
    [HOUR - 1, HOUR, 47 * HOUR, 48 * HOUR, 48 * HOUR + 1, 100 * HOUR, 168 * HOUR, 169 * HOUR]
)  # fmt: skip
steps = st.one_of(usual, usual, usual, usual, st.integers(0, 900 * NS), seldom)


@st.composite
def logs(draw: st.DrawFn, changes: bool = False, longest: int = 30) -> list[Said]:
    """Reports, ticks and pauses, at times that meet window ends, hours and 48 h, and sometimes step back."""
    kinds = st.sampled_from(["report"] * 12 + ["tick", "pause"] + (["change"] if changes else []))
    log, ts = [], START + draw(st.sampled_from([0, 1, -1, 299 * NS]))
    size = draw(st.integers(1, longest))  # a list's own length would nearly always be small
    for kind in draw(st.lists(kinds, min_size=size, max_size=size)):
        ts += draw(steps)
        match kind:
            case "report":
                log.append(Said(ts, draw(st.sampled_from(THINGS)), draw(readings)))
            case "tick":
                log.append(Said(ts))
            case "pause":
                log.append(Said(ts, since=ts - draw(st.sampled_from([0, NS, HOUR, 50 * HOUR]))))
            case _:
                log.append(Said(ts, rules=draw(rule_sets())))
    return numbered(log)
