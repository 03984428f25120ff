"""A moment as it is written on the command line: epoch seconds or ISO 8601."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation


def seconds_of(text: str) -> Decimal:
    """Epoch seconds, exact to the digit. ISO 8601 is UTC where it names no offset. Raises ValueError."""
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = Decimal(int(moment.replace(microsecond=0).timestamp())) + Decimal(moment.microsecond) / 1_000_000
    if not seconds.is_finite():
        raise ValueError(f"{text!r} is no moment")
    return seconds
