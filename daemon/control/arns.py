"""The names of resources: `arn:aws:iot:REGION:ACCOUNT:RESOURCE`, where RESOURCE is like `securityprofile/NAME`.

Inside, resources are known by RESOURCE alone; the account and region are those of the configuration.
"""

from config.model import Account
from daemon.control.refusal import InvalidRequestException


def arn_of(account: Account, resource: str) -> str:
    return f"arn:aws:iot:{account.region}:{account.id}:{resource}"


def resource_of(account: Account, arn: str) -> str:
    """What an ARN of ours names.

    Raises:
        InvalidRequestException: it is none, or one of another account, region or service.
    """
    head = arn_of(account, "")
    if not arn.startswith(head) or arn == head:
        raise InvalidRequestException(f"{arn!r} is no resource here: ARNs begin with {head}")
    return arn.removeprefix(head)
