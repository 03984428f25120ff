"""A pytest plugin for moto's tests: before each, the registry is emptied through the API. detectd has no reset call."""

import os
from typing import Any

import boto3
import pytest


@pytest.fixture(autouse=True)
def _empty_registry() -> None:
    client = boto3.client("iot", endpoint_url=os.environ["TEST_SERVER_MODE_ENDPOINT"], region_name="ap-northeast-1")
    for thing in _all(client, "list_things", "things"):
        client.delete_thing(thingName=thing["thingName"])
    while groups := _all(client, "list_thing_groups", "thingGroups"):
        _delete_leaves(client, [group["groupName"] for group in groups])
    for group in _all(client, "list_billing_groups", "billingGroups"):
        client.delete_billing_group(billingGroupName=group["groupName"])
    for kind in _all(client, "list_thing_types", "thingTypes"):
        client.delete_thing_type(thingTypeName=kind["thingTypeName"])


def _all(client: Any, operation: str, member: str) -> list[dict[str, Any]]:
    return [each for page in client.get_paginator(operation).paginate() for each in page[member]]


def _delete_leaves(client: Any, names: list[str]) -> None:
    for name in names:
        if not client.list_thing_groups(parentGroup=name)["thingGroups"]:
            client.delete_thing_group(thingGroupName=name)
