"""From rules to actors: one per set of targets, each behavior judged or named as unjudged."""

from builders import behavior, profile, rules

from actors.columns import schema_of
from actors.metrics import kinds
from actors.plan import key_of, plans, targets_of
from config.model import Behavior, Criteria, MlDetectionConfig

PORTS = behavior("aws:listening-tcp-ports", "in-port-set", [22], name="ports")
BYTES = behavior("aws:all-bytes-out", "less-than", 5, name="bytes", duration=300)


def planned(*profiles, **more):
    settled = rules(*profiles, **more)
    return plans(settled, kinds(), schema_of(settled, kinds()))


def test_profiles_of_one_set_of_targets_share_an_actor_whatever_the_order_they_name_it_in():
    one = profile(PORTS, name="q", targets=["thinggroup/a", "thinggroup/b"])
    two = profile(BYTES, name="p", targets=["thinggroup/b", "thinggroup/a", "thinggroup/a"])
    [plan] = planned(one, two)
    assert plan.key == "thinggroup/a+thinggroup/b"
    assert [(slot.profile, slot.behavior.name) for slot in plan.slots] == [("p", "bytes"), ("q", "ports")]


def test_different_sets_of_targets_have_actors_of_their_own():
    found = planned(
        profile(PORTS, name="p", targets=["thinggroup/a"]),
        profile(PORTS, name="q", targets=["thinggroup/a", "all/things"]),
    )
    assert [plan.key for plan in found] == ["all/things+thinggroup/a", "thinggroup/a"]


def test_a_key_says_which_targets_it_is_of():
    targets = ["thinggroup/b", "all/things", "thinggroup/b"]
    assert targets_of(key_of(targets)) == set(targets)


def test_a_profile_without_targets_watches_nothing():
    assert planned(profile(PORTS, targets=[])) == ()


def test_what_no_criterion_can_judge_is_named():
    learned = Behavior(
        name="learned", metric="aws:all-bytes-out",
        criteria=Criteria(ml_detection_config=MlDetectionConfig(confidence_level="HIGH")),
    )  # fmt: skip
    cloud = behavior("aws:num-messages-sent", "less-than", 5, name="cloud", duration=300)
    unknown = behavior("undefined", "less-than", 5, name="unknown")
    bare = Behavior(name="bare", metric="aws:all-bytes-out")
    [plan] = planned(profile(learned, cloud, unknown, bare, PORTS))
    assert [slot.behavior.name for slot in plan.slots] == ["cloud", "ports"]
    assert plan.unjudged == ("p/learned", "p/unknown", "p/bare")
