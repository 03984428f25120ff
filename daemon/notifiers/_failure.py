"""Why a receiver was not reached, for all kinds that speak HTTP."""

import ssl

import aiohttp

from actors.delivery import Reason, Retry


def failure(error: Exception) -> Retry:
    """What went wrong, in words that hold nothing of the URL: it may carry a token.

    `error`: a TimeoutError, OSError or aiohttp.ClientError of the attempt.
    """
    match error:
        case TimeoutError():
            return Retry(Reason.TIMEOUT)
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Retry(Reason.TLS, type(error).__name__)
        case aiohttp.ClientOSError() | OSError():
            return Retry(Reason.UNREACHABLE, error.strerror or type(error).__name__)
        case _:
            return Retry(Reason.PROTOCOL, type(error).__name__)
