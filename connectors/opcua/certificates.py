"""Certificates of both sides: what is wrong with one, in a sentence that says what to do."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from fusion.errors import SourceRefused


def load(key: str, file: str) -> x509.Certificate:
    """A certificate in DER or PEM.

    Raises:
        SourceRefused: the file is missing or holds none.
    """
    try:
        data = Path(file).read_bytes()
        return (x509.load_pem_x509_certificate if b"-----BEGIN" in data else x509.load_der_x509_certificate)(data)
    except OSError as error:
        raise SourceRefused(f"{key}: {file}: {error.strerror}") from error
    except ValueError as error:
        raise SourceRefused(f"{key}: {file} holds no certificate (DER or PEM)") from error


def check_time(key: str, file: str, certificate: x509.Certificate) -> None:
    """Refuse a certificate outside its time.

    Raises:
        SourceRefused: it has expired or is not valid yet.
    """
    now, first, last = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > last:
        raise SourceRefused(f"{key}: {file} has expired on {last:%Y-%m-%d %H:%M} UTC; have it renewed")
    if now < first:
        hint = "set the clock that is wrong, or wait"
        raise SourceRefused(f"{key}: {file} is not valid before {first:%Y-%m-%d %H:%M} UTC; {hint}")


def check_host(key: str, file: str, certificate: x509.Certificate, host: str) -> None:
    """Refuse a certificate that names hosts, but not this one; one that names none is for any.

    Raises:
        SourceRefused: it belongs to another host.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    said = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    if said and not any(_same(name, host) for name in said):
        raise SourceRefused(
            f"{key}: {file} belongs to {', '.join(said)} and not to {host}; name the host in url as the certificate "
            "does, or say its name in server_name where that is right"
        )


def _same(name: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(host)
    except ValueError:
        return name.lower() == host.lower()


def told_apart(shown: bytes, file: str, pinned: x509.Certificate) -> str:
    """How the certificate that a server shows differs from the one that is trusted; empty where it does not."""
    try:
        other = x509.load_der_x509_certificate(shown)
    except ValueError:
        return "the server shows no readable certificate"
    print_ = other.fingerprint(hashes.SHA256())
    if print_ == pinned.fingerprint(hashes.SHA256()):
        return ""
    return (
        f"the server shows another certificate ({other.subject.rfc4514_string()}, SHA-256 {print_.hex()}) than "
        f"server_certificate {file}; where it was renewed on purpose, put the new one there"
    )
