"""Verbs of whoever looks after a site: logins of the page, certificates, signatures, the audit."""

from __future__ import annotations

import argparse
from pathlib import Path

from fusion.command import Verb, finite, say
from fusion.errors import ConfigError, FusionError


def _user(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name")
    verb.add_argument("--users", type=Path, required=True, metavar="FILE", help="file of people; hashes, no passwords")
    verb.add_argument(
        "--right",
        default="viewer",
        choices=("viewer", "operator", "engineer"),
        help="to look, also to order, or also to choose the model",
    )
    verb.add_argument("--password-file", metavar="FILE", help="holds the password alone; else it is asked for")


def run_user(arguments: argparse.Namespace) -> None:
    """A person who may log in to the page."""
    from getpass import getpass

    from fusion.credentials import secret
    from fusion.dashboard.access import Right, write_person

    password = secret("user.password", None, arguments.password_file) or getpass(f"password of {arguments.name}: ")
    write_person(arguments.users, arguments.name, Right(arguments.right), password)
    say(f"{arguments.users}: {arguments.name} is {arguments.right}")


def _sign(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of a model or a recording")
    keys = verb.add_mutually_exclusive_group(required=True)
    keys.add_argument("--new-key", type=Path, metavar="FILE", help="make a private key, and FILE.pub to give away")
    keys.add_argument("--key", type=Path, metavar="FILE", help="sign with this private key")
    keys.add_argument("--check", type=Path, metavar="FILE.pub", help="compare with this public key")


def run_sign(arguments: argparse.Namespace) -> None:
    """A new key, signatures, or a look at them."""
    from fusion.checkpoint import DESCRIPTION, load_checkpoint
    from fusion.recordings.recording import MANIFEST, Recording
    from fusion.signing import check_signature, new_key, sign

    if arguments.new_key:
        say(f"{arguments.new_key}: keep it secret; give away {new_key(arguments.new_key)}")
    for folder in arguments.folders:
        is_model = (folder / DESCRIPTION).is_file()
        load_checkpoint(folder) if is_model else Recording.verified(folder)
        signed = folder / (DESCRIPTION if is_model else MANIFEST)
        if arguments.check:
            check_signature(signed, arguments.check)
        say(f"{folder}: as it was signed" if arguments.check else str(sign(signed, arguments.key or arguments.new_key)))


def _certs(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("folder", type=Path)
    verb.add_argument("--authority", metavar="NAME", help="ca.pem and ca.key: what signs server and clients")
    verb.add_argument("--server", nargs="+", default=[], metavar="HOST", help="server.pem of a broker or page")
    verb.add_argument("--client", nargs="+", default=[], metavar="NAME", help="NAME.pem of one who logs in by it")
    verb.add_argument("--opcua", metavar="URI", help="opcua.der of this application, such as urn:plant:fusion")
    verb.add_argument("--host", nargs="+", default=[], metavar="HOST", help="names of this machine, for --opcua")
    verb.add_argument("--days", type=finite, default=730.0, help="how long they are to last")


def run_certs(arguments: argparse.Namespace) -> None:
    """Certificates made, and all of the folder shown."""
    from datetime import UTC, datetime

    from fusion.certificates import Workshop, read_certificate

    if not 0 < arguments.days < 36_500:
        raise ConfigError(f"--days: {arguments.days:g} is not accepted; expected 1 to 36500")
    workshop = Workshop(arguments.folder, arguments.days)
    if arguments.authority:
        workshop.authority(arguments.authority)
    if arguments.server:
        workshop.server(arguments.server)
    for name in arguments.client:
        workshop.client(name)
    if arguments.opcua:
        workshop.opcua(arguments.opcua, arguments.host)
    shown = (file for end in ("*.pem", "*.der") for file in arguments.folder.glob(end))
    for file in sorted(file for file in shown if not file.name.endswith(".key.pem")):
        found = read_certificate(file)
        left = f"until {found.until:%Y-%m-%d}, {found.days_left(datetime.now(UTC)):.0f} days"
        say(f"{file}: {found.subject}; {', '.join(found.names) or 'no names'}; {left}; thumbprint {found.thumbprint}")


def _audit(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("state", type=Path, help="folder that the daemon's `state` names")


def run_audit(arguments: argparse.Namespace) -> None:
    """Whether the audit of a state folder is as it was written."""
    from fusion.daemon.audit import AUDIT, check_audit

    found = check_audit(arguments.state / AUDIT)
    if found.broken is not None:
        raise FusionError(f"{arguments.state / AUDIT}: was changed at line {found.broken} or before")
    torn = f", {found.torn} cut short by a loss of power" if found.torn else ""
    say(f"{arguments.state / AUDIT}: {found.lines} lines as they were written{torn}; last hash {found.last}")


VERBS = (
    Verb("user", "add a person who may log in to the page, or change one", _user, run_user),
    Verb("sign", "sign models and recordings, or check whose they are", _sign, run_sign),
    Verb("certs", "make certificates of TLS and OPC UA, and show them with their end", _certs, run_certs),
    Verb("audit", "check that nobody changed what the daemon wrote of orders, alarms and advice", _audit, run_audit),
)
