"""The certificate, the key and the CA that a listener speaks TLS with: loaded, or which file is wrong, and how."""

import ssl
from collections.abc import Iterator

from config.model import Settings, Tls


def put_into(context: ssl.SSLContext, tls: Tls) -> None:
    """Have a context show the certificate; with `ca`, ask clients for one that it signed.

    Raises:
        OSError: a file can't be read, or is not what it should be; the message names it.
    """
    if tls.ca is not None:
        try:
            context.load_verify_locations(tls.ca)
        except ssl.SSLError as problem:
            raise OSError(f"{tls.ca}: no CA certificates: {problem.reason or problem}") from problem
    context.verify_mode = ssl.CERT_REQUIRED if tls.ca else ssl.CERT_NONE
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except ssl.SSLError as problem:
        why = (problem.reason or str(problem)).lower().replace("_", " ")
        raise OSError(f"{tls.cert}, {tls.key}: no certificate and its key: {why}") from problem


def flaws(settings: Settings) -> Iterator[str]:
    """What is wrong with the files of every listener, each beginning with the setting."""
    embedded = settings.broker.embedded
    listeners = {
        "http.tls": settings.http.tls,
        "broker.embedded.tls": embedded.tls if embedded is not None else None,
        **{f"broker.sensors[{at}].tls": one.tls for at, one in enumerate(settings.broker.sensors)},
    }
    for setting, tls in listeners.items():
        if tls is not None:
            try:
                put_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls)
            except OSError as problem:
                yield f"{setting}: {problem}"
