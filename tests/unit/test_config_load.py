"""Files to settings: shapes, included files, places, paths, order."""

import json
import os
from pathlib import Path

import pytest

from actors.metrics import kinds
from config.diff import rules_digest
from config.load import ConfigError, UnreadableError, load, load_text
from config.model import NS, AlertTarget, Behavior, Embedded, Group, Nats, Settings

DATA = Path(__file__).parent.parent / "data"
EXAMPLE = Path(__file__).parent.parent.parent / "config" / "examples" / "detectd.yaml"

BEHAVIOR = {
    "name": "B",
    "metric": "aws:listening-tcp-ports",
    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [22]}},
}


def settings(text, file="/c/detectd.yaml"):
    return load_text(text, file=file, kinds=kinds()).settings


def refusals(text, file="/c/detectd.yaml"):
    with pytest.raises(ConfigError) as refused:
        load_text(text, file=file, kinds=kinds())
    return [str(problem) for problem in refused.value.problems]


def profile(name="P", **more):
    return {"securityProfileName": name, "behaviors": [BEHAVIOR], "targets": ["all/things"], **more}


@pytest.fixture
def folder(tmp_path):
    def write(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_yaml", ".yaml").replace("_json", ".json")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / "main.yaml"

    return write


def test_the_example_loads_clean():
    loaded = load(EXAMPLE, kinds())
    assert loaded.warnings == ()
    assert [each.security_profile_name for each in loaded.settings.rules.profiles] == ["Network", "Pumps"]
    assert loaded.settings.rules.fleet.groups["pumps"] == Group(parent="site", things=("pump-1", "pump-2"))


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "null"])
def test_an_empty_file_is_refused_as_an_editor_may_be_writing_it(text):
    with pytest.raises(ConfigError, match=r"detectd.yaml:\d+:\d+: is empty"):
        settings(text)


def test_an_empty_object_is_all_defaults():
    found = settings("{}")
    assert found.broker.embedded == Embedded()
    assert found.data_dir == Path("/c/data")
    assert (found.http, found.rules, found.log) == (Settings().http, Settings().rules, Settings().log)


def test_a_nats_of_ones_own_replaces_the_embedded_broker():
    broker = settings('broker: {nats: {url: "nats://n1:4222"}}').broker
    assert (broker.embedded, broker.nats) == (None, Nats(url="nats://n1:4222"))


def test_all_problems_of_shape_in_all_files_are_listed_at_their_places(monkeypatch):
    monkeypatch.chdir(DATA / "settings-many-problems")
    with pytest.raises(ConfigError) as refused:
        load(Path("detectd.yaml"), kinds())
    here = str(DATA / "settings-many-problems")
    listed = [str(problem).replace(here + "/", "") for problem in refused.value.problems]
    assert listed == [
        'detectd.yaml:2:3: http.lisen: unknown key "lisen", did you mean "listen"?',
        'detectd.yaml:3:17: http.access_keys[0]: "secret_file" is missing',
        'detectd.yaml:3:25: http.access_keys[0].secret: unknown key "secret", did you mean "secret_file"?',
        "detectd.yaml:6:5: profiles[1]: there is no file profiles/missing.json",
        "detectd.yaml:8:29: limits.report_interval_s: expected a number, got text",
        "fleet.json:2:20: things[1]: expected text, got a whole number; put it in quotes",
        'fleet.json:4:15: groups.pumps.thing: unknown key "thing", did you mean "things"?',
        (
            "profiles/a.yaml:5:7: behaviors[0].criteria.comparison_operator: "
            'unknown key "comparison_operator", did you mean "comparisonOperator"?'
        ),
        "profiles/a.yaml:6:37: behaviors[0].criteria.consecutiveDatapointsToAlarm: expected a whole number, got text",
        'profiles/b.yaml:2:1: the key "securityProfileName" is here a second time; the first is in line 1',
    ]
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("[]", "1:1: expected a mapping, got a list"),
        ("htp: {}", '1:1: htp: unknown key "htp", did you mean "http"?'),
        ("zzzzz: {}", '1:1: zzzzz: unknown key "zzzzz"; known are data_dir, account, http'),
        ("account: {id: 123456789012}", "1:15: account.id: expected text, got a whole number; put it in quotes"),
        ("http: {behind_proxy: no}", "1:22: http.behind_proxy: expected true or false, got text"),
        ("http: {access_keys: {}}", "1:21: http.access_keys: expected a list, got a mapping"),
        ("limits: {durations: AWS}", '1:21: limits.durations: unknown "AWS", did you mean "aws"?'),
        ("logging: {level: chatty}", '1:18: logging.level: unknown "chatty"; it is one of debug, info'),
        ("limits: {population_min: 2.5}", "1:26: limits.population_min: expected a whole number, got a number"),
        ("limits: {population_min: true}", "1:26: limits.population_min: expected a whole number, got true or false"),
        ("limits: {things_max: 99999999999999999999}", "1:22: limits.things_max: things_max should be in range[1,"),
        ("limits: {grace_s: 1" + "0" * 350 + "}", "1:19: limits.grace_s: the number is too large"),
        ("profiles: [7]", "1:12: profiles[0]: expected a mapping, got a whole number"),
        ("profiles: [{}]", '1:12: profiles[0]: "securityProfileName" is missing'),
        ("fleet: 7", "1:8: fleet: expected a mapping, got a whole number"),
        (
            "receivers: {webhooks: [{name: a, url: null}]}",
            "1:39: receivers.webhooks[0].url: expected text, got nothing",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_its_place(text, refusal):
    assert [each.startswith(f"/c/detectd.yaml:{refusal}") for each in refusals(text)] == [True], refusals(text)


def test_a_typo_elsewhere_does_not_hide_what_is_wrong_with_the_profiles():
    assert len(refusals("htp: 1\nprofiles: [{name: a}]\n")) == 3


def test_null_stands_for_nothing():
    given = profile(alertTargets=None, tags=None, additionalMetricsToRetainV2=None, metricsExportConfig=None)
    given["behaviors"] = [{**BEHAVIOR, "suppressAlerts": None, "metricDimension": None}]
    found = settings(json.dumps({"profiles": [given], "http": None, "fleet": {"groups": {"g": None}}}))
    assert found.rules.profiles[0].alert_targets == {}
    assert found.rules.fleet.groups == {"g": Group()}
    assert found.http == Settings().http


def test_what_describe_security_profile_prints_is_a_valid_file():
    printed = profile(
        securityProfileArn="arn:aws:iot:eu-west-1:123456789012:securityprofile/P",
        version=3,
        creationDate="2026-01-02T03:04:05.678000+00:00",
        lastModifiedDate=1767323045.29,
        alertTargets={
            "SNS": {"alertTargetArn": "arn:aws:sns:x:123456789012:t", "roleArn": "arn:aws:iam::123456789012:role/r"}
        },
        additionalMetricsToRetainV2=[{"metric": "aws:num-disconnects"}],
    )
    (found,) = settings(json.dumps({"profiles": [printed]})).rules.profiles
    assert found.alert_targets == {
        "SNS": AlertTarget("arn:aws:sns:x:123456789012:t", "arn:aws:iam::123456789012:role/r")
    }
    assert (found.version, found.security_profile_arn, found.creation_date, found.last_modified_date) == (None,) * 4


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: [p], lambda p: {"profiles": [p]}, lambda p: {"profiles": p}])
@pytest.mark.parametrize("name", ["p_yaml", "p_json"])
def test_an_included_file_holds_one_object_a_list_or_a_named_list(folder, wrap, name):
    main = folder(main_yaml="profiles: ['p.*']\n", **{name: wrap(profile())})
    (found,) = load(main, kinds()).settings.rules.profiles
    assert found.behaviors == (
        Behavior(name="B", metric="aws:listening-tcp-ports", criteria=found.behaviors[0].criteria),
    )


def test_every_collection_may_be_a_file_a_glob_or_inline(folder):
    main = folder(
        main_yaml="""
profiles: p*.json
custom_metrics: [m.yaml, {metricName: inline, metricType: number}]
dimensions: [d.json]
fleet: [fleet-*.yaml, {things: [t3], groups: {g3: {parent: g1}}}]
""",
        p1_json=profile("P1"),
        p2_json=[profile("P2"), profile("P3")],
        m_yaml="- {metricName: m1, metricType: number-list}\n- {metricName: m2, metricType: string-list}\n",
        d_json={"dimensions": [{"name": "D", "type": "TOPIC_FILTER", "stringValues": ["a/+"]}]},
    )
    (main.parent / "fleet-1.yaml").write_text("things: [t1]\ngroups: {g1: {things: [t1]}}\n")
    (main.parent / "fleet-2.yaml").write_text("things: [t2]\n")
    loaded = load(main, kinds())
    rules, folder_ = loaded.settings.rules, main.parent
    assert [each.security_profile_name for each in rules.profiles] == ["P1", "P2", "P3"]
    assert [each.metric_name for each in rules.custom_metrics] == ["inline", "m1", "m2"]
    assert (rules.dimensions[0].name, rules.fleet.things, list(rules.fleet.groups)) == (
        "D",
        ("t1", "t2", "t3"),
        ["g1", "g3"],
    )
    names = ["main.yaml", "d.json", "fleet-1.yaml", "fleet-2.yaml", "m.yaml", "p1.json", "p2.json"]
    assert loaded.settings.sources == tuple(folder_ / name for name in names)
    assert loaded.settings.origin == {
        "profile/P1": str(folder_ / "p1.json"),
        "profile/P2": str(folder_ / "p2.json"),
        "profile/P3": str(folder_ / "p2.json"),
        "custom-metric/m1": str(folder_ / "m.yaml"),
        "custom-metric/m2": str(folder_ / "m.yaml"),
        "custom-metric/inline": str(folder_ / "main.yaml"),
        "dimension/D": str(folder_ / "d.json"),
        "group/g1": str(folder_ / "fleet-1.yaml"),
        "group/g3": str(folder_ / "main.yaml"),
        "things": ", ".join(str(folder_ / name) for name in ("fleet-1.yaml", "fleet-2.yaml", "main.yaml")),
    }
    assert loaded.folders == (folder_,)


def test_what_is_wrong_between_files_is_said_of_the_file_it_is_in(folder):
    main = folder(
        main_yaml="profiles: [{securityProfileName: I, targets: [thinggroup/x]}, a.json, b.json]\nfleet: [{}, f.yaml]",
        a_json=[profile("A"), profile("B", targets=["nowhere"])],
        b_json=profile("A"),
        f_yaml="things: [ok, 'not ok']\ngroups:\n  g: {parent: h}\n",
    )
    with pytest.raises(ConfigError) as refused:
        load(main, kinds())
    listed = [(each.file.name, each.path, each.message[:30]) for each in refused.value.problems]
    assert listed == [
        ("a.json", "[1].targets[0]", "a target is one of all/things,"),
        ("b.json", "securityProfileName", '"A" is defined a second time'),
        ("f.yaml", "things[1]", "a thing's name must be 1 to 12"),
        ("f.yaml", "groups.g.parent", 'group "h" is not defined'),
        ("main.yaml", "profiles[0].targets[0]", 'group "x" is not defined'),
    ]


def test_empty_parts_do_not_shift_the_places(folder):
    main = folder(
        main_yaml="profiles: [empty1.json, a.json, empty2.json, b.json, empty3.json]\n",
        empty1_json=[],
        a_json=[profile("A")],
        empty2_json=[],
        b_json=[profile("B"), profile("C", targets=["nowhere"])],
        empty3_json=[],
    )
    with pytest.raises(ConfigError) as refused:
        load(main, kinds())
    assert [(each.file.name, each.path) for each in refused.value.problems] == [("b.json", "[1].targets[0]")]


def test_a_glob_without_a_match_is_a_warning_and_its_folder_is_watched(folder):
    main = folder(main_yaml="profiles: [later/**/*.yaml]\n")
    loaded = load(main, kinds())
    assert [str(each) for each in loaded.warnings] == [
        f"{main}:1:12: profiles[0]: no file matches {main.parent}/later/**/*.yaml"
    ]
    assert loaded.folders == (main.parent / "later",)


def test_hidden_files_and_folders_match_no_glob(folder):
    main = folder(main_yaml="profiles: ['**/*.json']\n", a__p_json=profile("P"))
    for hidden in ("..data", ".git"):
        (main.parent / hidden).mkdir()
        (main.parent / hidden / "p.json").write_text(json.dumps(profile("P")))
    (main.parent / ".p.json").write_text("broken")
    assert len(load(main, kinds()).settings.rules.profiles) == 1


def test_a_file_that_two_patterns_match_is_read_once(folder):
    main = folder(main_yaml="profiles: [p.json, '*.json']\n", p_json=profile())
    assert len(load(main, kinds()).settings.rules.profiles) == 1


def test_a_bad_file_that_two_patterns_match_is_reported_once(folder):
    main = folder(main_yaml="profiles: [p.json, '*.json']\n", p_json="{")
    with pytest.raises(ConfigError) as refused:
        load(main, kinds())
    assert len(refused.value.problems) == 1


def test_an_empty_file_is_a_warning(folder):
    loaded = load(folder(main_yaml="profiles: [p.yaml]\n", p_yaml="# nothing yet\n"), kinds())
    assert [each.message for each in loaded.warnings] == ["the file holds nothing"]


def test_a_group_is_defined_once(folder):
    main = folder(main_yaml="fleet: [a.yaml, b.yaml]\n", a_yaml="groups: {g: {}}\n", b_yaml="groups:\n  g: {}\n")
    with pytest.raises(ConfigError, match=r'b\.yaml:2:3: groups\.g: group "g" is defined a second time'):
        load(main, kinds())


def test_relative_paths_start_at_the_folder_of_the_file(folder, monkeypatch):
    main = folder(
        main_yaml="""
data_dir: d
http: {access_keys: [{id: A, secret_file: keys/a}]}
broker: {bridges: [{name: b, url: "mqtts://h", username: u, password_file: keys/b, ca: ca.pem}]}
receivers: {webhooks: [{name: w, url: "http://127.0.0.1/", secret_file: keys/w}]}
""",
        keys__a="secret",
        keys__b="secret",
        keys__w="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )
    (main.parent / "ca.pem").write_text("x")
    for key in (main.parent / "keys").iterdir():
        key.chmod(0o600)
    monkeypatch.chdir(main.parent.parent)
    loaded = load(Path(main.parent.name) / "main.yaml", kinds())
    found, here = loaded.settings, main.parent
    assert loaded.warnings == ()
    assert found.data_dir == here / "d"
    assert found.http.access_keys[0].secret_file == here / "keys" / "a"
    assert (found.broker.bridges[0].password_file, found.broker.bridges[0].ca) == (here / "keys" / "b", here / "ca.pem")
    assert found.receivers.webhooks[0].secret_file == here / "keys" / "w"
    assert found.sources == (here / "main.yaml", *(here / "keys" / name for name in "abw"))


def test_a_swapped_symlink_is_followed_at_the_next_load(tmp_path):
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "main.yaml").write_text("profiles: [p.json]\n")
        (tmp_path / version / "p.json").write_text(json.dumps(profile(version)))
    data = tmp_path / "..data"
    data.symlink_to("one")
    for name in ("main.yaml", "p.json"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    first = load(tmp_path / "main.yaml", kinds()).settings
    data.unlink()
    data.symlink_to("two")
    second = load(tmp_path / "main.yaml", kinds()).settings
    assert first.sources == second.sources == (tmp_path / "main.yaml", tmp_path / "p.json")
    assert [each.rules.profiles[0].security_profile_name for each in (first, second)] == ["one", "two"]


def test_the_same_objects_in_another_order_are_the_same_rules():
    one = {
        "profiles": [profile("A", targets=["all/things", "thinggroup/g"]), profile("B")],
        "fleet": {"things": ["t1", "t2"], "groups": {"g": {"things": ["t3", "t1"]}, "h": {}}},
    }
    arn = "arn:aws:iot:eu-west-1:123456789012:"
    other = {
        "fleet": {"groups": {"h": {}, "g": {"things": ["t1", "t3", "t1"]}}, "things": ["t2", "t1", "t2"]},
        "profiles": [
            profile("B", version=4),
            profile("A", targets=[f"{arn}thinggroup/g", f"{arn}all/things", "thinggroup/g"]),
        ],
    }
    rules = [settings(json.dumps(each)).rules for each in (one, other)]
    assert rules[0] == rules[1]
    assert rules_digest(rules[0]) == rules_digest(rules[1])
    assert rules[0].profiles[0].targets == ("all/things", "thinggroup/g")


def test_the_order_of_behaviors_is_kept():
    behaviors = [{**BEHAVIOR, "name": name} for name in ("z", "a")]
    (found,) = settings(json.dumps({"profiles": [profile(behaviors=behaviors)]})).rules.profiles
    assert [each.name for each in found.behaviors] == ["z", "a"]


def test_a_missing_main_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableError):
        load(tmp_path / "absent.yaml", kinds())


def test_a_file_that_is_not_ours_to_read_is_a_problem_among_the_others(folder):
    main = folder(main_yaml="profiles: [p.json, q.json]\n", p_json=profile(), q_json="{")
    (main.parent / "p.json").unlink()
    (main.parent / "p.json").symlink_to(main.parent)
    with pytest.raises(ConfigError) as refused:
        load(main, kinds())
    assert len(refused.value.problems) == 2
    assert not isinstance(refused.value, UnreadableError)


def test_a_hundred_profiles_of_a_hundred_behaviors_and_a_hundred_thousand_things_are_loaded(folder):
    behaviors = [{**BEHAVIOR, "name": f"b{i}"} for i in range(100)]
    files = {f"p{i}_json": profile(f"P{i}", behaviors=behaviors, targets=[f"thinggroup/g{i}"]) for i in range(100)}
    fleet = {"things": [f"t{i}" for i in range(100_000)], "groups": {f"g{i}": {} for i in range(100)}}
    main = folder(main_yaml="profiles: ['p*.json']\nfleet: fleet.json\n", fleet_json=fleet, **files)
    rules = load(main, kinds()).settings.rules
    assert sum(len(each.behaviors) for each in rules.profiles) == 10_000
    assert len(rules.fleet.things) == 100_000


def test_times_in_seconds_may_be_whole_numbers():
    found = settings("limits: {report_interval_s: 300, grace_s: 0}\n").rules.limits
    assert (found.report_interval_s, found.grace_s) == (300.0, 0.0)
    assert isinstance(found.report_interval_s * NS, float)


def test_a_file_literally_named_like_a_glob_is_that_file(folder):
    main = folder(main_yaml="profiles: ['[p].json']\n")
    (main.parent / "[p].json").write_text(json.dumps(profile("literal")))
    assert load(main, kinds()).settings.rules.profiles[0].security_profile_name == "literal"


def test_an_absolute_glob_is_taken_as_it_is(folder, tmp_path):
    main = folder(main_yaml=f"profiles: ['{tmp_path}{os.sep}p*.json']\n", p_json=profile())
    assert len(load(main, kinds()).settings.rules.profiles) == 1
