"""What botocore writes is read as it was meant, and what is written botocore reads: all operations of the model."""

import json
import random
import string
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from multidict import CIMultiDict

from config.model import NS
from daemon.http.aws import model, request, route

EXAMPLES = 4
ANY_TEXT = string.ascii_letters + " :/%+&=?#.-_~$*'\"\\\t\nüß€😀\u2028"
HEADER_TEXT = string.ascii_letters + string.digits + ":/=.-_"


@cache
def service() -> ServiceModel:
    """The model without its patterns, so that any text will do."""
    described = Loader().load_service_model("iot", "service-2")
    for shape in described["shapes"].values():
        shape.pop("pattern", None)
    return ServiceModel(described, "iot")


class Examples:
    """Valid values of shapes."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def value(self, shape: Shape, depth: int = 0, alphabet: str = ANY_TEXT) -> Any:
        chance, limits = self._chance, shape.metadata
        match shape.type_name:
            case "structure":
                return self.structure(shape, depth)
            case "list":
                return [self.value(shape.member, depth + 1) for _ in range(self._size(limits, 3))]
            case "map":
                keys = {self.value(shape.key, depth + 1) for _ in range(self._size(limits, 3))}
                return {key: self.value(shape.value, depth + 1) for key in keys}
            case "string" if "enum" in limits:
                return chance.choice(limits["enum"])
            case "string":
                return "".join(chance.choices(alphabet, k=self._size(limits, 20)))
            case "integer" | "long":
                low = limits.get("min", -(2**31))
                return chance.randint(low, limits.get("max", 2**31 - 1 if shape.type_name == "integer" else 2**62))
            case "double" | "float":
                return chance.choice([0.0, 0.1, -2.5, 1e300])
            case "boolean":
                return chance.random() < 0.5
            case "timestamp":
                return datetime.fromtimestamp(chance.randrange(2**33), UTC)
            case "blob":
                return chance.randbytes(5)
        raise AssertionError(shape.type_name)

    def structure(self, shape: Shape, depth: int = 0) -> dict[str, Any]:
        return {
            name: self.value(member, depth + 1, HEADER_TEXT if _is_header(member) else ANY_TEXT)
            for name, member in shape.members.items()
            if name in shape.required_members or self._chance.random() < 1 / (depth + 1)
        }

    def _size(self, limits: Mapping[str, Any], most: int) -> int:
        low = max(limits.get("min", 0), 1)  # an empty label is no path, an empty list no query parameter
        return self._chance.randint(low, max(low, min(limits.get("max", most), most)))


def _is_header(shape: Shape) -> bool:
    return bool(shape.serialization.get("location") == "header")


def _inside(value: Any) -> Any:
    """As handlers see it: instants are ns."""
    match value:
        case datetime():
            return int(value.timestamp()) * NS
        case list():
            return [_inside(each) for each in value]
        case dict():
            return {key: _inside(each) for key, each in value.items()}
    return value


@pytest.fixture(name="chance")
def seeded() -> random.Random:
    seed = random.randrange(2**32)
    print("seed", seed)
    return random.Random(seed)


def operations() -> list[OperationModel]:
    return [service().operation_model(name) for name in service().operation_names]


def test_what_botocore_writes_is_read_as_it_was_meant(chance: random.Random) -> None:
    known = {each.name: model.operation(each) for each in operations()}
    tree = route.tree(known.values())
    for each in operations():
        for _ in range(EXAMPLES if each.input_shape else 0):
            meant = Examples(chance).structure(each.input_shape)
            asked = _written(each, meant)
            url = urlsplit(asked.url)
            found = route.find(tree, asked.method, url.path)
            assert found is not None, (each.name, url.path)
            assert found[0] is known[each.name]
            headers = CIMultiDict({key: _text(value) for key, value in asked.headers.items()})
            read = request.parameters(*found, url.query, headers, _bytes(asked.body))
            assert read == _inside(meant), each.name


def test_what_is_written_botocore_reads_as_it_was_meant(chance: random.Random) -> None:
    for each in operations():
        shape = each.output_shape
        if shape is None or any("location" in member.serialization for member in shape.members.values()):
            continue
        for _ in range(EXAMPLES):
            meant = Examples(chance).structure(shape)
            body = json.dumps(model.operation(each).write(_inside(meant))).encode()
            answer = {"status_code": 200, "headers": {}, "body": body}
            read = create_parser("rest-json").parse(answer, shape)
            read.pop("ResponseMetadata")
            assert read == meant, each.name


def _written(operation: OperationModel, params: Mapping[str, Any]) -> Any:
    written = create_serializer("rest-json", include_validation=False).serialize_to_request(params, operation)
    prepare_request_dict(written, endpoint_url="http://127.0.0.1:8080")
    return create_request_object(written).prepare()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _bytes(body: str | bytes | None) -> bytes:
    return body.encode() if isinstance(body, str) else body or b""
