"""What the compiled scanner accepts, the reference accepts too, with the same columns; for any bytes whatever."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from report_examples import NUMBERS, any_customs, damaged, reports, tame, texts
from scanning import frames

from actors.columns import Schema, decode_frames, schema_of
from actors.messages import Columns, Frames
from actors.metrics import kinds
from config.model import CustomMetric, Limits, Rules

CUSTOM = (
    *(CustomMetric(metric_name=name, metric_type="number") for name in NUMBERS),
    CustomMetric(metric_name="list", metric_type="number-list"),
    CustomMetric(metric_name="words", metric_type="string-list"),
    CustomMetric(metric_name="hosts", metric_type="ip-address-list"),
)
SCHEMA = schema_of(Rules(custom_metrics=CUSTOM), kinds())
LIMITS = Limits()


def by_reference(batch: Frames) -> Columns:
    return decode_frames(batch, uncompiled(SCHEMA), LIMITS)


def uncompiled(schema: Schema) -> Schema:
    return Schema(**{name: getattr(schema, name) for name in Schema.__slots__} | {"compiled": False})


def rows(columns: Columns) -> list[Any]:
    """Entry by entry, what the columns say."""
    found = []
    for i in range(len(columns.ok)):
        sets = [elements(column, i) for column in columns.sets]
        found.append((int(columns.ok[i]), int(columns.report_id[i]), columns.scalars[i].tolist(), sets))
    return found


def elements(column: Any, i: int) -> list[tuple[int, int]] | None:
    start, count = int(column.start[i]), int(column.count[i])
    span = slice(start, start + count)
    return None if count < 0 else list(zip(column.hi[span].tolist(), column.lo[span].tolist(), strict=True))


def agree(payloads: list[bytes]) -> Columns:
    batch = frames(payloads)
    scanned, reference = decode_frames(batch, SCHEMA, LIMITS), by_reference(batch)
    assert rows(scanned) == rows(reference)
    assert scanned.rejected == reference.rejected
    assert scanned.ignored == reference.ignored
    return scanned


@settings(max_examples=300, deadline=None)
@given(st.lists(texts(reports()), min_size=1, max_size=4))
def test_good_reports_in_any_spelling(payloads: list[bytes]) -> None:
    agree(payloads)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts(reports(any_customs)), min_size=1, max_size=3))
def test_reports_with_any_custom_metrics(payloads: list[bytes]) -> None:
    agree(payloads)


@settings(max_examples=600, deadline=None)
@given(st.lists(damaged(texts(tame)) | damaged(texts(reports())), min_size=1, max_size=4))
def test_damaged_reports(payloads: list[bytes]) -> None:
    agree(payloads)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_arbitrary_bytes(payloads: list[bytes]) -> None:
    agree(payloads)
