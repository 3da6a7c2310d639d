"""Signatures of models and recordings: Ed25519 over the file that holds the hashes of all others.

``model.json.sig`` and ``manifest.json.sig`` lie beside what they sign, as base64.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from fusion.errors import ConfigError
from fusion.files import whole_file

SUFFIX = ".sig"


def new_key(file: Path) -> Path:
    """Make a private key, for its owner alone, and its public key beside it; returns the name of the latter.

    Raises:
        ConfigError: there is a file of that name already.
    """
    public = file.with_suffix(".pub")
    if file.exists() or public.exists():
        raise ConfigError(f"{file}: a key is there already; choose another name")
    key = Ed25519PrivateKey.generate()
    with whole_file(file) as aside:
        aside.touch(0o600)
        aside.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with whole_file(public) as aside:
        aside.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public


def sign(file: Path, key: Path) -> Path:
    """Write the signature of a file beside it.

    Raises:
        ConfigError: the key cannot be read or is none of Ed25519.
    """
    try:
        private = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{key}: no private key that can be read ({type(error).__name__})") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{key}: expected a private key of Ed25519, as `fusion sign --new-key` makes it")
    with whole_file(_beside(file)) as aside:
        aside.write_bytes(base64.b64encode(private.sign(file.read_bytes())) + b"\n")
    return _beside(file)


def check_signature(file: Path, key: Path) -> None:
    """Refuse a file that the owner of a public key did not sign.

    Raises:
        ConfigError: naming the key, the signature or the file.
    """
    try:
        public = load_pem_public_key(key.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{key}: no public key that can be read ({type(error).__name__})") from error
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError(f"{key}: expected a public key of Ed25519")
    try:
        public.verify(base64.b64decode(_beside(file).read_bytes(), validate=False), file.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename}: missing; `fusion sign` writes it") from error
    except (InvalidSignature, binascii.Error, OSError) as error:
        raise ConfigError(f"{file}: not signed by the owner of {key}, or changed since") from error


def _beside(file: Path) -> Path:
    return file.with_name(file.name + SUFFIX)
