"""What the ARN of an SNS topic looks like."""

import re
from typing import Final

_ARN: Final = re.compile(r"arn:(aws[a-z-]*):sns:([a-z0-9-]{1,64}):([0-9]{12}):([A-Za-z0-9_-]{1,256}(?:\.fifo)?)")
RULE: Final = "is like arn:aws:sns:REGION:ACCOUNT:NAME, the account with 12 digits"


def is_topic(arn: str) -> bool:
    return _ARN.fullmatch(arn) is not None


def region_of(arn: str) -> str:
    """The region of a topic."""
    return arn.split(":")[3]
