"""All that must hold between settings, and all that is odd about them: every problem at once, each at its place."""

from collections.abc import Callable

from config.behaviors import check_behaviors
from config.endpoints import check_daemon
from config.export import check_exports
from config.kinds import Kinds
from config.model import Rules, Settings
from config.objects import check_rules
from config.problem import Finding, Place, Problem, problem, shown

__all__ = ["BehaviorProblem", "Places", "check", "check_behaviors", "check_merged"]

BehaviorProblem = Finding
Places = Callable[[Finding], Place]
"""Where in which file a finding is about. Paths are those of the file: `("broker", "embedded", "mqtt")`, and rules'
objects and `limits` are at the top: `("profiles", 0, "behaviors", 2, "criteria")`."""


def check(settings: Settings, kinds: Kinds, places: Places) -> tuple[list[Problem], list[Problem]]:
    """(errors, warnings), each in the order of files and lines. The secret files that are named are read."""
    findings = [*check_daemon(settings), *check_rules(settings.rules, kinds), *check_exports(settings)]
    errors = [_placed(finding, places) for finding in findings if not finding.is_warning]
    warnings = [_placed(finding, places) for finding in findings if finding.is_warning]
    return sorted(errors, key=_order), sorted(warnings, key=_order)


def check_merged(rules: Rules, kinds: Kinds) -> list[str]:
    """What is wrong with rules that no file holds as a whole, in words that name the object: files' and the API's."""
    return [_named(finding, rules) for finding in check_rules(rules, kinds) if not finding.is_warning]


def _named(finding: Finding, rules: Rules) -> str:
    match finding.path:
        case ("profiles", int(at), *rest):
            where = f"security profile {rules.profiles[at].security_profile_name}: {shown(tuple(rest))}"
        case ("custom_metrics", int(at), *rest):
            where = f"custom metric {rules.custom_metrics[at].metric_name}: {shown(tuple(rest))}"
        case ("dimensions", int(at), *rest):
            where = f"dimension {rules.dimensions[at].name}: {shown(tuple(rest))}"
        case path:
            where = shown(path)
    return f"{where}: {finding.message}"


def _placed(finding: Finding, places: Places) -> Problem:
    return problem(places(finding), finding.message)


def _order(problem: Problem) -> tuple[str, int, int]:
    return str(problem.file), problem.line, problem.column
