"""Certificates of a site for OPC UA: our own, made once, and those of servers, kept when they are first seen."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.uaerrors import UaError

from connectors.opcua.config import MODES, POLICIES, OpcUaConfig
from fusion.certificates import Workshop, read_certificate
from fusion.errors import SourceError, SourceRefused

PKI = "pki"
CERTIFICATE, KEY = "opcua.der", "opcua.key.pem"
YEARS = 5
TIMEOUT_S = 5.0


def own_certificate(site: Path) -> tuple[Path, Path]:
    """Our certificate and its key in a site's folder, made where they are missing."""
    folder = site / PKI
    certificate, key = folder / CERTIFICATE, folder / KEY
    if not (certificate.exists() and key.exists()):
        uri = OpcUaConfig(url="opc.tcp://here", insecure=True).application_uri
        Workshop(folder, 365.0 * YEARS).opcua(uri, [socket.gethostname()])
    return certificate, key


async def trusted(url: str, site: Path) -> tuple[dict[str, Any], str]:
    """Settings of an encrypted connection to a server, and what to say of a certificate that is seen first.

    The strongest of what the server offers is taken. Its certificate is kept in the site: from then on it is the only
    one that is trusted.

    Raises:
        SourceError: the server cannot be reached.
        SourceRefused: it offers no encryption, or shows another certificate than before.
    """
    certificate, key = own_certificate(site)
    policy, mode, shown = _strongest(await _endpoints(url), url)
    parts = urlsplit(url)
    kept = site / PKI / f"{parts.hostname}_{parts.port or 4840}.der"
    said = ""
    if not kept.exists():
        kept.write_bytes(shown)
        digest = hashlib.sha256(shown).hexdigest()
        said = f"its certificate is kept as {kept}; compare its SHA-256 with the server's own: {digest}"
    elif kept.read_bytes() != shown:
        raise SourceRefused(f"shows another certificate than {kept}; delete that file if the server was renewed")
    files = {"certificate": certificate, "private_key": key, "server_certificate": kept}
    settings: dict[str, Any] = {name: str(file.resolve()) for name, file in files.items()}
    hosts = [name for name in read_certificate(kept).names if ":" not in name]
    if hosts and (parts.hostname or "").lower() not in [host.lower() for host in hosts]:
        settings["server_name"] = hosts[0]  # that very certificate is trusted, whatever the server is called here
        said += f"; it belongs to {', '.join(hosts)}, which server_name in daemon.yaml takes for right" if said else ""
    settings |= {"security_policy": policy} if policy != POLICIES[0] else {}
    return settings | ({"security_mode": mode} if mode != MODES[0] else {}), said


async def _endpoints(url: str) -> list[Any]:
    try:
        client = Client(url, timeout=TIMEOUT_S)
        return list(await asyncio.wait_for(client.connect_and_get_server_endpoints(), 2 * TIMEOUT_S))
    except (UaError, OSError, TimeoutError) as error:
        raise SourceError(str(error) or "no answer") from error


def _strongest(endpoints: list[Any], url: str) -> tuple[str, str, bytes]:
    """Policy, mode and certificate of the endpoint to take."""
    offered = {
        (endpoint.SecurityPolicyUri.rpartition("#")[2].replace("_", ""), endpoint.SecurityMode): endpoint
        for endpoint in endpoints
    }
    for mode in MODES:
        for policy in POLICIES:
            endpoint = offered.get((policy, ua.MessageSecurityMode[mode]))
            if endpoint is not None and endpoint.ServerCertificate:
                return policy, mode, bytes(endpoint.ServerCertificate)
    raise SourceRefused(f"{url}: offers no encryption that is accepted ({', '.join(POLICIES)}); say --insecure")
