"""The router and all group actors under one set of rules, and how new rules are taken.

Live, in a replay and while a crashed actor is rebuilt, the same world is driven by the same log.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, assert_never

import numpy as np

from actors.columns import Schema, schema_of
from actors.controls import Change, Control, Pause, Retry
from actors.criteria._base import Slot
from actors.effects import Transition
from actors.entries import frames_of
from actors.event_columns import source_number
from actors.group import GroupActor
from actors.messages import BACKLOG, Downtime, Frames, Moment, Share
from actors.plan import GroupPlan, Registry, plans
from actors.router import Routed, Router
from actors.series import series_of
from config.kinds import Kinds
from config.model import Rules

NO_LONGER = "no longer monitored: its behavior, profile or target is gone"


class World:
    """`identity` is the log's, `interval_default_s` the floor between reports where the rules state none."""

    def __init__(self, rules: Rules, kinds: Kinds, identity: str, interval_default_s: float = 300.0) -> None:
        self.kinds, self.identity = kinds, identity
        self.rules = rules
        self.schema = schema_of(rules, kinds)
        self.plans = plans(rules, kinds, self.schema)
        self.router = Router(rules, self.schema, self.plans, interval_default_s)
        self.actors = {
            plan.key: GroupActor(plan.key, plan.slots, self.schema, rules.limits, identity, plan.measures)
            for plan in self.plans
        }

    def handle(self, frames: Frames, only: str | None = None) -> tuple[Routed, list[Transition]]:
        """Everything at once, in one thread of control: for replays, and for rebuilding one actor (`only`).

        The transitions are ordered by position.
        """
        routed = self.router.route(frames)
        shares = {key: share for key, share in routed.shares.items() if only in (None, key)}
        effects = [effect for key, share in shares.items() for effect in self.actors[key].handle(share)]
        for actor in self.actors.values():
            actor.taken()  # nobody asks for them here
        return routed, sorted(effects, key=lambda effect: effect.position)

    def advance(self, moment: Moment) -> list[Transition]:
        """Let time pass without an entry: the end of a replay's input."""
        self.router.last_ts = max(self.router.last_ts, moment.ts)
        return [effect for actor in self.actors.values() for effect in actor.advance(moment)]

    def pause(self, down: Downtime, *, cut: bool = False) -> list[Transition]:
        """Our own downtime is not silence of the devices; that of one bridge is none of its devices only.

        `cut`: all connections that the source told of have ended.
        """
        ts = max(down.ts, self.router.last_ts)
        self.router.last_ts = ts
        down = Downtime(down.position, ts, down.since, down.source)
        source = source_number(down.source) if down.source else None
        effects = [effect for actor in self.actors.values() for effect in actor.pause(down, source)]
        if cut and source is not None:
            self._cut(source, ts)
        return effects

    def _cut(self, source: int, ts: int) -> None:
        """Every connection that went through a source has ended with it."""
        for name in self.router.presence.cut(source, ts):
            code = self.router.registry.codes.get(name, 0)
            for plan in self.plans:
                if self.router.registry.covers_code(plan.targets, code):
                    self.actors[plan.key].hang_up(name, int(code > 0), ts)

    def moment(self, control: Control) -> Moment:
        """Of an entry that acts on all; time never goes back."""
        return Moment(control.position, max(control.ts, self.router.last_ts))

    def obey(self, control: Control, rules: Rules | None) -> list[Transition]:
        """Do what an entry says. `rules` are those that a change names; None: it is passed over, time goes on."""
        moment = self.moment(control)
        match control.what:
            case Pause(since=since, source=source, cut=cut):
                return self.pause(Downtime(moment.position, moment.ts, since, source), cut=cut)
            case Retry() as what:
                return self.retry(what, moment)
            case Change():
                return self.advance(moment) if rules is None else self.change(rules, moment)
            case never:
                assert_never(never)

    def retry(self, what: Retry, moment: Moment) -> list[Transition]:
        """Judge a report that was set aside once more."""
        shares = self.retried(what, moment)
        return [effect for key, actor in self.actors.items() for effect in actor.handle(shares[key])]

    def retried(self, what: Retry, moment: Moment) -> dict[str, Share]:
        """Shares that hand such a report to the actor that it broke; for the others only time passes."""
        frames = frames_of([(moment.position, moment.ts, what.subject, what.payload, None, BACKLOG)])
        shares = self.router.route(frames, admitted=True).shares
        none, unflagged = np.zeros(0, np.int32), np.zeros(0, np.uint8)
        return {
            key: share if key == what.actor else replace(share, entries=none, registered=unflagged, events=none)
            for key, share in shares.items()
        }

    def change(self, rules: Rules, moment: Moment) -> list[Transition]:
        """Take new rules at their place in the log: everything new is built before anything live is replaced."""
        effects = self.advance(moment)
        schema = schema_of(rules, self.kinds)
        new_plans = plans(rules, self.kinds, schema)
        same_fleet = rules.fleet == self.rules.fleet
        registry = self.router.registry if same_fleet else Registry(rules.fleet)
        successors = {plan.key: self._successor(plan, rules, schema, moment) for plan in new_plans}
        for plan in new_plans:
            if successors[plan.key] is self.actors.get(plan.key) and not same_fleet:
                effects += _release(successors[plan.key], plan, registry, moment)
        for actor in self.actors.values():
            if successors.get(actor.key) is not actor:
                effects += _hand_over(actor, successors, new_plans, registry, moment)
        fresh = {key for key, actor in successors.items() if actor is not self.actors.get(key)}
        same_clients = same_fleet and rules.clients == self.rules.clients
        self.rules, self.schema, self.plans, self.actors = rules, schema, new_plans, successors
        self.router.configure(rules, schema, new_plans, registry)
        self._seat(fresh if same_clients else successors.keys())
        return effects

    def _seat(self, keys: Iterable[str]) -> None:
        """Tell actors who is connected, as only the router knows it of those that are new to them."""
        wanted = [plan for plan in self.plans if plan.key in set(keys) and plan.measures]
        standings = list(self.router.presence.standings()) if wanted else []
        registry = self.router.registry
        for plan in wanted:
            own = [(one, registry.codes.get(one.thing, 0)) for one in standings]
            covered = ((one, code > 0) for one, code in own if registry.covers_code(plan.targets, code))
            self.actors[plan.key].seat(covered)

    def dump(self) -> dict[str, Any]:
        return {"router": self.router.dump(), "actors": {key: actor.dump() for key, actor in self.actors.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        self.router.load(state["router"])
        for key, actor in self.actors.items():
            actor.load(state["actors"][key])

    def _successor(self, plan: GroupPlan, rules: Rules, schema: Schema, moment: Moment) -> GroupActor:
        """The actor for a plan under new rules: the old one where nothing changed for it, else one that begins now."""
        old = self.actors.get(plan.key)
        same = schema == self.schema and rules.limits == self.rules.limits
        if old is not None and same and old.slots == plan.slots and old.meter.measures == plan.measures:
            return old
        fresh = GroupActor(plan.key, plan.slots, schema, rules.limits, self.identity, plan.measures)
        fresh.begin(moment)
        return fresh


def _release(actor: GroupActor, plan: GroupPlan, registry: Registry, moment: Moment) -> list[Transition]:
    """Give up the rows of an otherwise unchanged actor that its targets no longer cover."""
    identities = actor.roster.identities()
    gone = [row for row, name, known in identities if not registry.covers(plan.targets, name, registered=known)]
    rows = set(gone)
    effects = actor.alarms.withdraw(moment, {key for key in actor.alarms.openings if key[0] in rows}, NO_LONGER)
    actor.forget(np.array(gone, np.int64))
    return effects


def _hand_over(
    old: GroupActor,
    successors: Mapping[str, GroupActor],
    new_plans: Iterable[GroupPlan],
    registry: Registry,
    moment: Moment,
) -> list[Transition]:
    """Move an actor's rows, with their state, to the actors that now have its profiles; end what nobody covers."""
    left = set(old.alarms.openings)
    identities = old.roster.identities()
    for plan in new_plans:
        heir = successors[plan.key]
        pairs = _matching_slots(old, heir)
        if pairs or heir.measures_with(old):
            things = [one for one in identities if registry.covers(plan.targets, one[1], registered=one[2])]
            heir.inherit(old, pairs, things)
            moved, kept = {row for row, _, _ in things}, {own for own, _ in pairs}
            left = {(row, slot) for row, slot in left if row not in moved or slot not in kept}
    return old.alarms.withdraw(moment, left, NO_LONGER)


def _matching_slots(old: GroupActor, new: GroupActor) -> list[tuple[int, int]]:
    """(old slot, new slot) of every behavior whose state survives: the same name, metric and dimension."""
    places = {_measured(slot): at for at, slot in enumerate(new.slots)}
    found = [(at, places.get(_measured(slot))) for at, slot in enumerate(old.slots)]
    return [(ours, theirs) for ours, theirs in found if theirs is not None]


def _measured(slot: Slot) -> tuple[Any, ...]:
    """A custom metric that was made anew with another type is another metric."""
    series = series_of(slot.metric.name, slot.behavior.metric_dimension)  # IN is the same written out or not
    return slot.profile, slot.behavior.name, series, slot.metric.value_field
