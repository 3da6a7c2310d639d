"""Where a tag lives on an OPC UA server: by namespace URI, never by an index that moves when a server restarts."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from fusion.errors import ConfigError

_NODE = re.compile(r"(?:nsu=(?P<uri>.+?);|ns=(?P<index>\d+);)?(?P<kind>[sigb])=(?P<identifier>.+)", re.DOTALL)
STANDARD_URI = "http://opcfoundation.org/UA/"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAddress:
    """A node: namespace URI, kind of identifier (s text, i number, g GUID, b base64) and identifier."""

    uri: str | None
    kind: str
    identifier: str

    def index_in(self, namespaces: Sequence[str]) -> int | None:
        """The index of the namespace on a server with this namespace array, if it is served."""
        uri = self.uri or STANDARD_URI
        return namespaces.index(uri) if uri in namespaces else None


def parse_node(key: str, text: str) -> NodeAddress:
    """Read ``nsu=URI;s=identifier``; ``i=2258`` alone is a node of the OPC UA standard itself.

    Raises:
        ConfigError: another form, or a namespace index, which means another namespace after the next restart.
    """
    match = _NODE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{key}: {text!r} is not accepted; expected nsu=URI;s=identifier (or i=, g=, b=)")
    if match["index"] not in (None, "0"):
        raise ConfigError(f"{key}: ns={match['index']} may move when the server restarts; use nsu=URI;...")
    try:
        _identifier(match["kind"], match["identifier"])
    except (ValueError, binascii.Error) as error:
        raise ConfigError(f"{key}: {match['identifier']!r} is no identifier of kind {match['kind']}=") from error
    return NodeAddress(uri=match["uri"], kind=match["kind"], identifier=match["identifier"])


def identifier(address: NodeAddress) -> int | str | bytes | uuid.UUID:
    """The identifier as the type its kind means."""
    return _identifier(address.kind, address.identifier)


def _identifier(kind: str, text: str) -> int | str | bytes | uuid.UUID:
    if kind == "i":
        return int(text)
    if kind == "g":
        return uuid.UUID(text)
    return base64.b64decode(text, validate=True) if kind == "b" else text
