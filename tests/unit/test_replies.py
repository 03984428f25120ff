"""Answers to devices, byte for byte as clients read them (spec.md §2.5)."""

import cbor2
import msgspec
import pytest

from actors.messages import Rejected
from actors.replies import accepted, refused

WHY = Rejected("InvalidPayload", "Malformed metrics report: header: missing", "malformed")


def read(body: bytes, *, cbor: bool):
    return cbor2.loads(body) if cbor else msgspec.json.decode(body)


@pytest.mark.parametrize("cbor", [False, True])
@pytest.mark.parametrize("name", ["sensor-7", "p 1", 'a"b', "a\\b", "größe", "a.b/c:d"])
def test_an_accepted_report_is_answered_with_its_id_in_the_format_of_the_request(name, cbor):
    body = accepted(name.encode(), 1767323045, 1767323046269, cbor=cbor)
    assert read(body, cbor=cbor) == {
        "thingName": name, "reportId": 1767323045, "status": "ACCEPTED", "timestamp": 1767323046269,
    }  # fmt: skip


@pytest.mark.parametrize("cbor", [False, True])
def test_a_rejected_report_is_answered_with_code_and_message(cbor):
    assert read(refused(b"p1", WHY, 5, cbor=cbor), cbor=cbor) == {
        "thingName": "p1",
        "status": "REJECTED",
        "statusDetails": {"ErrorCode": WHY.code, "ErrorMessage": WHY.message},
        "timestamp": 5,
    }


def test_a_rejection_names_the_report_where_its_id_could_be_read():
    why = Rejected("Throttled", "reports must be at least 300 s apart", "throttled", 12)
    assert read(refused(b"p1", why, 5, cbor=False), cbor=False)["reportId"] == 12


def test_a_name_that_is_no_text_does_not_break_the_answer():
    assert read(refused(b"\xff\xfe", WHY, 5, cbor=False), cbor=False)["thingName"] == "\ufffd\ufffd"
