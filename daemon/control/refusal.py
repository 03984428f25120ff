"""Why the control plane does not do what was asked: the exceptions of AWS's service model (spec.md §10.1)."""

from collections.abc import Mapping


class Refusal(Exception):
    """Base of all. The class's name is the error's code; `members` are what its shape has beside the message."""

    def __init__(self, message: str, members: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.members = dict(members or {})

    @property
    def code(self) -> str:
        return type(self).__name__


class InvalidRequestException(Refusal): ...


class ResourceNotFoundException(Refusal): ...


class VersionConflictException(Refusal): ...


class LimitExceededException(Refusal): ...


class ThrottlingException(Refusal): ...


class ServiceUnavailableException(Refusal): ...


class ResourceAlreadyExistsException(Refusal):
    """Says which resource there is."""

    def __init__(self, message: str, resource_id: str, resource_arn: str) -> None:
        super().__init__(message, {"resourceId": resource_id, "resourceArn": resource_arn})
