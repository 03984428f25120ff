"""Rules of two origins as one: everything of both, the file's word where both speak."""

from config.canonical import canonical
from config.merge import merged
from config.model import CustomMetric, Dimension, Fleet, Group, Limits, Rules, SecurityProfile


def profile(name: str, text: str = "", *targets: str) -> SecurityProfile:
    return SecurityProfile(security_profile_name=name, security_profile_description=text or None, targets=targets)


def test_without_anything_of_the_api_the_files_rules_are_the_rules() -> None:
    files = Rules(profiles=(profile("b"), profile("a")), fleet=Fleet(("t1",), {"g": Group()}))
    assert merged(files, Rules()) is files


def test_objects_of_both_are_in_and_in_one_order() -> None:
    files = Rules(profiles=(profile("b"),), custom_metrics=(CustomMetric(metric_name="m2", metric_type="number"),))
    api = Rules(
        profiles=(profile("c"), profile("a")),
        custom_metrics=(CustomMetric(metric_name="m1", metric_type="number"),),
        dimensions=(Dimension(name="d", string_values=("a/#",)),),
    )
    both = merged(files, api)
    assert [each.security_profile_name for each in both.profiles] == ["a", "b", "c"]
    assert [each.metric_name for each in both.custom_metrics] == ["m1", "m2"]
    assert both == canonical(both)


def test_where_both_define_a_name_the_file_counts() -> None:
    both = merged(Rules(profiles=(profile("p", "file"),)), Rules(profiles=(profile("p", "api"),)))
    assert [each.security_profile_description for each in both.profiles] == ["file"]


def test_the_limits_are_the_files() -> None:
    both = merged(Rules(limits=Limits(population_min=5)), Rules(profiles=(profile("p"),)))
    assert both.limits.population_min == 5


def test_groups_have_the_members_of_both_and_the_files_parent() -> None:
    files = Fleet(("t0",), {"site": Group(), "pumps": Group("site", ("t1", "t2"))})
    api = Fleet(("t9",), {"pumps": Group(None, ("t2", "t3")), "api": Group("site", ("t4",))})
    both = merged(Rules(fleet=files), Rules(fleet=api)).fleet
    assert both.groups == {"api": Group("site", ("t4",)), "pumps": Group("site", ("t1", "t2", "t3")), "site": Group()}
    assert both.things == ("t0", "t9")
