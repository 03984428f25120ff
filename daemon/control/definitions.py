"""Profiles, custom metrics and dimensions as the tables hold them: canonical JSON of what decides alarms.

Names, targets, tags and what AWS only prints have columns and tables of their own and are no part of a body.
"""

from typing import Final, TypeVar

import msgspec

from config.model import CustomMetric, Dimension, SecurityProfile

Defined = TypeVar("Defined", SecurityProfile, CustomMetric, Dimension)

_ELSEWHERE: Final = {"tags": (), "targets": (), "version": None, "creation_date": None, "last_modified_date": None}
_ARNS: Final = ("security_profile_arn", "metric_arn", "arn")

_encoder = msgspec.json.Encoder(order="deterministic")
_profile = msgspec.json.Decoder(SecurityProfile)
_metric = msgspec.json.Decoder(CustomMetric)
_dimension = msgspec.json.Decoder(Dimension)


def profile_body(profile: SecurityProfile) -> str:
    return _body(profile)


def metric_body(metric: CustomMetric) -> str:
    return _body(metric)


def dimension_body(dimension: Dimension) -> str:
    return _body(dimension)


def profile_from(name: str, body: str) -> SecurityProfile:
    """The profile of a row, without targets and tags."""
    return msgspec.structs.replace(_profile.decode(body), security_profile_name=name)


def metric_from(name: str, body: str) -> CustomMetric:
    return msgspec.structs.replace(_metric.decode(body), metric_name=name)


def dimension_from(name: str, body: str) -> Dimension:
    return msgspec.structs.replace(_dimension.decode(body), name=name)


def _body(each: Defined) -> str:
    fields = each.__struct_fields__
    gone = {name: value for name, value in _ELSEWHERE.items() if name in fields}
    arns = {name: None for name in _ARNS if name in fields}
    return _encoder.encode(msgspec.structs.replace(each, **gone, **arns)).decode()
