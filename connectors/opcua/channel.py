"""A client's way in: who we are, which server we trust, and how the channel is protected."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies

from connectors.opcua.certificates import check_host, check_time, load
from connectors.opcua.config import OpcUaConfig
from fusion.credentials import secret


async def connect(client: Client, config: OpcUaConfig) -> None:
    """Connect a fresh client as its settings say.

    Raises:
        SourceRefused: a certificate of ours or of the server may not be used.
    """
    password = secret("opcua.password", config.password, config.password_file)
    if config.username:
        client.set_user(config.username)
        client.set_password(password or "")
    if not config.insecure:
        _check_certificates(config)
        await client.set_security(
            getattr(security_policies, f"SecurityPolicy{config.security_policy}"),
            Path(config.certificate or ""),
            Path(config.private_key or ""),
            server_certificate=config.server_certificate,
            mode=ua.MessageSecurityMode[config.security_mode],
        )
    await client.connect()


def _check_certificates(config: OpcUaConfig) -> None:
    ours, theirs = config.certificate or "", config.server_certificate or ""
    check_time("opcua.certificate", ours, load("opcua.certificate", ours))
    pinned = load("opcua.server_certificate", theirs)
    check_time("opcua.server_certificate", theirs, pinned)
    host = config.server_name or urlsplit(config.url).hostname or ""
    check_host("opcua.server_certificate", theirs, pinned, host)
