"""HTTP over TLS, and the commands that ask the daemon through it."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
from system_tools import DETECTD, Daemon, free_port, until, write

pytestmark = pytest.mark.system


async def test_endpoints_and_commands_speak_tls_where_it_is_configured(tmp_path: Path) -> None:
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (tmp_path / "key.pem").write_bytes(issued.private_key_pem.bytes())
    listen = f"127.0.0.1:{free_port()}"
    config = write(tmp_path, http={"listen": listen, "tls": {"cert": "cert.pem", "key": "key.pem"}})
    daemon = Daemon(config)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    try:
        await daemon.start(ready=False)
        await until(lambda: '"ready"' in daemon.log_path.read_text(), daemon.log)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
            async with session.get(f"https://{listen}/-/ready") as answer:
                assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://{listen}/-/ready")
        child = await asyncio.create_subprocess_exec(str(DETECTD), "poison", "--config", str(config), "list")
        assert await asyncio.wait_for(child.wait(), 60) == 0
        assert await daemon.stop() == 0
    finally:
        await daemon.clean_up()
