"""Sends a botocore client's requests over a TLS context of ours: one that trusts a certificate, whoever signed it."""

import ssl
from typing import Any

import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import HTTPClientError

CONNECT_S = 10.0
READ_S = 30.0


def pin(client: Any, context: ssl.SSLContext, connections: int) -> None:
    """From now on, `client` speaks through `context`; names in certificates are not compared, as in `context`."""
    timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
    pool = urllib3.PoolManager(ssl_context=context, assert_hostname=False, maxsize=connections, timeout=timeout)

    def send(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        how: dict[str, Any] = {"body": request.body, "headers": request.headers, "preload_content": False}
        try:
            answer = pool.urlopen(request.method, request.url, redirect=False, retries=False, **how)
            response = AWSResponse(request.url, answer.status, answer.headers, answer)
            response.content  # noqa: B018  # reads it, so that what breaks breaks here
        except urllib3.exceptions.HTTPError as problem:
            raise HTTPClientError(error=problem) from problem
        return response

    client.meta.events.register("before-send", send)
