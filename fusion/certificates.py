"""Certificates of OPC UA and TLS: made where a site has no authority of its own, and watched for their end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fusion.errors import ConfigError
from fusion.files import whole_file

DAY_S = 86_400.0
RSA_BITS = 2048
AUTHORITY = "ca"
KEY_SUFFIX = {Encoding.PEM: ".key", Encoding.DER: ".key.pem"}  # OPC UA stacks go by the last ending
Key = EllipticCurvePrivateKey | RSAPrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a file says: whose it is, for which hosts and URIs, until when [UTC]."""

    file: Path
    subject: str
    names: tuple[str, ...]
    until: datetime
    thumbprint: str

    def days_left(self, now: datetime) -> float:
        """Days until it ends; negative afterwards."""
        return (self.until - now).total_seconds() / DAY_S


def read_certificate(file: Path) -> Certificate:
    """The first certificate of a PEM file, or that of a DER file.

    Raises:
        ConfigError: the file cannot be read or holds none.
    """
    try:
        data = file.read_bytes()
        found = (
            x509.load_pem_x509_certificates(data)[0] if b"-----BEGIN" in data else x509.load_der_x509_certificate(data)
        )
        names = _names(found)
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError(f"{file}: no certificate that can be read ({error})") from error
    return Certificate(
        file=file,
        subject=found.subject.rfc4514_string(),
        names=names,
        until=found.not_valid_after_utc,
        thumbprint=found.fingerprint(SHA1()).hex(),  # noqa: S303 - how OPC UA calls a certificate
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in said)


class Workshop:
    """Makes certificates in a folder that last ``days``; a file that is there already is never replaced."""

    def __init__(self, folder: Path, days: float) -> None:
        self._folder = folder
        self._until = datetime.now(UTC) + timedelta(days=days)
        folder.mkdir(parents=True, exist_ok=True)

    def authority(self, name: str) -> None:
        """An authority that signs the others: ``ca.pem`` is for everyone, ``ca.key`` for nobody."""
        key = generate_private_key(SECP256R1())
        built = self._builder(name, name, key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        built = built.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        self._keep(AUTHORITY, key, built.sign(key, SHA256()))

    def server(self, hosts: Sequence[str]) -> None:
        """``server.pem`` and ``server.key`` of a broker or page that is reached by these names and addresses."""
        self._signed("server", hosts[0], ExtendedKeyUsageOID.SERVER_AUTH, [_host(host) for host in hosts])

    def client(self, name: str) -> None:
        """``NAME.pem`` and ``NAME.key`` of somebody who says by certificate who it is."""
        self._signed(name, name, ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName(name)])

    def opcua(self, uri: str, hosts: Sequence[str]) -> None:
        """``opcua.der`` and ``opcua.key.pem`` of an application, signed by itself, as servers are told to trust it.

        Source: OPC 10000-6, 6.2.2 (application instance certificate).
        """
        key = generate_rsa_key(65537, RSA_BITS)
        names = [x509.UniformResourceIdentifier(uri), *(_host(host) for host in hosts)]
        usage = _usage(
            digital_signature=True,
            content_commitment=True,
            key_encipherment=True,
            data_encipherment=True,
            key_cert_sign=True,
        )
        built = (
            self._builder(uri, uri, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        self._keep("opcua", key, built.sign(key, SHA256()), Encoding.DER)

    def _signed(self, file: str, subject: str, purpose: x509.ObjectIdentifier, names: list[x509.GeneralName]) -> None:
        try:
            authority = x509.load_pem_x509_certificate((self._folder / f"{AUTHORITY}.pem").read_bytes())
            signer: Any = load_pem_private_key((self._folder / f"{AUTHORITY}.key").read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{self._folder}: no authority that can sign ({error}); make one with --authority"
            ) from error
        key = generate_private_key(SECP256R1())
        issuer = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        built = (
            self._builder(subject, str(issuer), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        self._keep(file, key, built.sign(signer, SHA256()))

    def _builder(self, subject: str, issuer: str, key: Key) -> x509.CertificateBuilder:
        if not 0 < len(subject) <= 64:
            raise ConfigError(f"{subject!r}: not accepted as a name; expected 1 to 64 letters")
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
            .not_valid_after(self._until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    def _keep(self, name: str, key: Key, made: x509.Certificate, form: Encoding = Encoding.PEM) -> None:
        certificate = self._folder / f"{name}.{'pem' if form is Encoding.PEM else 'der'}"
        private = self._folder / f"{name}{KEY_SUFFIX[form]}"
        for file in (certificate, private):
            if file.exists():
                raise ConfigError(f"{file}: is there already; move it away first")
        with whole_file(private) as aside:
            aside.touch(0o600)
            aside.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with whole_file(certificate) as aside:
            aside.write_bytes(made.public_bytes(form))


def _usage(**said: bool) -> x509.KeyUsage:
    known = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: said.get(name, False) for name in known})


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
