"""Whatever a client sends, the answer parses with botocore and is a success or an error of the model; never a 500."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from aws_server import Serving, api
from botocore.model import OperationModel, Shape
from botocore.parsers import create_parser
from control_runner import ARN, service
from yarl import URL

from daemon.http.aws.operations import handler_of

REQUESTS_PER_OPERATION = 60
NAMES = ("a", "b", "t1", "all/things", "", "ü", "x" * 129, "a b", "0", "\0", "a:b")
ARNS = (f"{ARN}all/things", f"{ARN}thinggroup/a", f"{ARN}thing/a", f"{ARN}securityprofile/a", "arn:aws:iot:x:1:thing/a")


class Inventor:
    """Makes values for shapes: mostly as they should be, sometimes not."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def value(self, shape: Shape, depth: int = 0) -> Any:
        chance = self._chance
        if chance.random() < 0.04:
            return chance.choice([None, 7, -1.5, "", [], {}, True, "x" * 3000, 2**70, [[]], {"a": {}}])
        match shape.type_name:
            case "structure":
                return self.structure(shape, depth)
            case "list":
                return [self.value(shape.member, depth + 1) for _ in range(chance.choice([0, 1, 1, 2, 3]))]
            case "map":
                keys = [self.value(shape.key, depth + 1) for _ in range(chance.choice([0, 1, 2]))]
                return {str(key): self.value(shape.value, depth + 1) for key in keys}
            case "string":
                return chance.choice(shape.metadata["enum"]) if "enum" in shape.metadata else self._text(shape)
            case "integer" | "long":
                return chance.choice([0, 1, 2, 5, 10, 300, 250, -1, 2**31, 2**63])
            case "double" | "float":
                return chance.choice([0, 1.5, -2.0, 1e308])
            case "boolean":
                return chance.random() < 0.5
            case "timestamp":
                return chance.choice([0, 1_767_323_100, 1.5, 4e9, -1, "2026-01-02T03:04:05Z", "nonsense"])
        return "AAAA"

    def structure(self, shape: Shape, depth: int) -> dict[str, Any]:
        chance = self._chance
        wanted = [
            name
            for name in shape.members
            if (name in shape.required_members and chance.random() < 0.97) or chance.random() < 0.4 / (depth + 1)
        ]
        made = {name: self.value(shape.members[name], depth + 1) for name in wanted}
        return made | ({"unheardOf": 1} if chance.random() < 0.02 else {})

    def _text(self, shape: Shape) -> str:
        if "Arn" in shape.name:
            return self._chance.choice([*ARNS, *NAMES])
        low, high = shape.metadata.get("min", 0), min(shape.metadata.get("max", 200), 3000)
        known = ("aws:all-bytes-out", "aws:listening-tcp-ports", "p99", "a", "b", "t1", "10.0.0.0/8", "x" * max(low, 1))
        return self._chance.choice([*known, *NAMES, "y" * high, "y" * (high + 1)])


async def test_any_request_of_every_operation_gets_an_answer_of_the_model(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    operations = [service().operation_model(name) for name in service().operation_names if handler_of(name)]
    assert len(operations) >= 50
    statuses: dict[int, int] = {}
    async with api(tmp_path) as serving, aiohttp.ClientSession() as session:
        for _ in range(REQUESTS_PER_OPERATION):
            chance.shuffle(operations)  # so that some find what others made
            for operation in operations:
                status = await _one(serving, session, operation, Inventor(chance))
                statuses[status] = statuses.get(status, 0) + 1
    print(statuses)
    assert statuses[200] > len(operations)
    assert statuses[400] > len(operations)


async def _one(serving: Serving, session: aiohttp.ClientSession, operation: OperationModel, inventor: Inventor) -> int:
    params = inventor.structure(operation.input_shape, 0)
    method, path, headers, body = _request(operation, params)
    url = URL(f"{serving.url}{path}", encoded=True)
    async with session.request(method, url, headers=headers, data=body) as answer:
        raw = {"status_code": answer.status, "headers": dict(answer.headers), "body": await answer.read()}
    story = f"{operation.name} {path} {body[:2000]!r} → {raw['status_code']} {raw['body'][:500]!r}"
    parsed = create_parser("rest-json").parse(
        {**raw, "headers": {key.lower(): value for key, value in raw["headers"].items()}}, operation.output_shape
    )
    if raw["status_code"] == 200:
        assert "Error" not in parsed, story
        return 200
    codes = {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in operation.error_shapes}
    codes["UnknownOperationException"] = 404  # a name that is empty, or holds a slash, is another path
    assert codes.get(parsed["Error"]["Code"]) == raw["status_code"], story
    assert parsed["Error"]["Code"] != "InternalFailureException", story
    return int(raw["status_code"])


def _request(operation: OperationModel, params: Mapping[str, Any]) -> tuple[str, str, dict[str, str], bytes]:
    path, query, headers, body = operation.http["requestUri"], [], {}, {}
    for name, shape in operation.input_shape.members.items():
        if name not in params:
            continue
        value, where = params[name], shape.serialization
        match where.get("location"):
            case "uri":
                path = path.replace(f"{{{where['name']}}}", quote(_spelled(value), safe=""))
            case "querystring":
                query.append((where["name"], _spelled(value)))
            case "header":
                headers[where["name"]] = quote(_spelled(value))
            case _:
                body[where.get("name", name)] = value
    path = "/".join("" if piece.startswith("{") else piece for piece in path.split("/"))
    unheard = {key: value for key, value in params.items() if key not in operation.input_shape.members}
    text = json.dumps(body | unheard).encode() if body or unheard else b""
    return operation.http["method"], path + (f"?{urlencode(query)}" if query else ""), headers, text


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
