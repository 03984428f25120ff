"""moto's server as a child process: SNS and SQS (and an AWS IoT registry) that really answer, on loopback."""

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import boto3
from system_tools import free_port

REGION = "eu-west-1"
CREDENTIALS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "sekret"}
START_S = 60.0


@contextmanager
def moto(folder: Path, port: int | None = None) -> Iterator[str]:
    """Its URL, once it answers."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "moto.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    try:
        _wait(url, child, folder / "moto.log")
        yield url
    finally:
        child.kill()
        child.wait()


def _wait(url: str, child: "subprocess.Popen[bytes]", log: Path) -> None:
    until = monotonic() + START_S
    while monotonic() < until and child.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/moto-api/", timeout=1):
            return
    raise AssertionError(f"moto's server did not answer: {log.read_text()[-2000:]}")


def client(service: str, url: str) -> Any:
    return boto3.client(service, endpoint_url=url, region_name=REGION, **CREDENTIALS)


class Queue:
    """A topic, and the queue that hears of it."""

    def __init__(self, url: str, name: str) -> None:
        self._sqs, sns = client("sqs", url), client("sns", url)
        self.topic = sns.create_topic(Name=name)["TopicArn"]
        self._url = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn)
        sns.close()
        self.messages: list[dict[str, Any]] = []  # what was published, oldest first
        self.envelopes: list[dict[str, Any]] = []

    async def seen(self, count: int, within_s: float = 30.0) -> list[dict[str, Any]]:
        """Wait for this many messages."""
        async with asyncio.timeout(within_s):
            while len(self.messages) < count:
                await asyncio.to_thread(self._receive)
                await asyncio.sleep(0.05)
        return self.messages

    def _receive(self) -> None:
        for message in self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages", ()):
            envelope = json.loads(message["Body"])
            self.envelopes.append(envelope)
            self.messages.append(json.loads(envelope["Message"]))
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])

    def close(self) -> None:
        self._sqs.close()
