"""All that must hold between settings, and all that is odd about them: every problem at once, each at its place."""

from collections.abc import Callable

from config.behaviors import check_behaviors
from config.endpoints import check_daemon
from config.kinds import Kinds
from config.model import Settings
from config.objects import check_rules
from config.problem import Finding, Place, Problem, problem

__all__ = ["BehaviorProblem", "Places", "check", "check_behaviors"]

BehaviorProblem = Finding
Places = Callable[[Finding], Place]
"""Where in which file a finding is about. Paths are those of the file: `("broker", "embedded", "mqtt")`, and rules'
objects and `limits` are at the top: `("profiles", 0, "behaviors", 2, "criteria")`."""


def check(settings: Settings, kinds: Kinds, places: Places) -> tuple[list[Problem], list[Problem]]:
    """(errors, warnings), each in the order of files and lines. The secret files that are named are read."""
    findings = [*check_daemon(settings), *check_rules(settings.rules, kinds)]
    errors = [_placed(finding, places) for finding in findings if not finding.is_warning]
    warnings = [_placed(finding, places) for finding in findings if finding.is_warning]
    return sorted(errors, key=_order), sorted(warnings, key=_order)


def _placed(finding: Finding, places: Places) -> Problem:
    return problem(places(finding), finding.message)


def _order(problem: Problem) -> tuple[str, int, int]:
    return str(problem.file), problem.line, problem.column
