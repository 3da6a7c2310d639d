"""The control system of the simulated plant as an OPC UA server: one variable per tag, setpoints writable.

Tags are addressed as ``nsu=urn:fusion:<plant>;s=<tag>``. Values carry the time at the source and a status code.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, timedelta
from typing import Any, Self

from asyncua import ua
from asyncua.common.callback import CallbackType, ServerItemCallback
from asyncua.common.node import Node
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.server import Server
from asyncua.server.user_managers import UserManager
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

from fusion.plant import Plant, Role, Signal
from fusion.records import Quality
from fusion.simulator.servers.ports import usable_port

log = logging.getLogger(__name__)

STOP_S = 2.0
_EPOCH = ua.DateTime(1970, 1, 1, tzinfo=UTC)
_STATUS = {
    Quality.GOOD: StatusCodes.Good,
    Quality.UNCERTAIN: StatusCodes.UncertainLastUsableValue,
    Quality.BAD: StatusCodes.BadSensorFailure,
}

Written = Callable[[str, float], None]


class OpcUaServer:
    """Serves process signals of a plant, as an async context; port 0 takes a free one.

    ``written`` is called with tag and value when a client has written a setpoint. ``users`` (name to password) shuts
    out everybody else. With ``certificate`` and ``private_key`` only signed and encrypted connections are accepted.
    """

    def __init__(
        self,
        plant: Plant,
        signals: Iterable[Signal],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        written: Written | None = None,
        users: Mapping[str, str] | None = None,
        certificate: str | None = None,
        private_key: str | None = None,
    ) -> None:
        self.uri = f"urn:fusion:{plant.name}"
        self._plant = plant
        self._signals = tuple(signals)
        self._host, self.port = host, port
        self._written = written
        self._users = dict(users or {})
        self._certificate, self._private_key = certificate, private_key
        self._server: Server | None = None
        self._nodes: dict[str, ua.NodeId] = {}
        self._tags: dict[ua.NodeId, str] = {}

    async def __aenter__(self) -> Self:
        """Build the address space and listen.

        Raises:
            ConfigError: where the port is taken, or may not be used.
        """
        server = Server(user_manager=_Users(self._users))
        self.port = usable_port("opcua_port", self._host, self.port)
        await server.init()
        server.set_endpoint(self.url)
        server.set_server_name(f"simulated plant {self._plant.name}")
        server.allow_remote_admin(False)
        await self._secure(server)
        await self._build(server)
        await server.start()
        server.subscribe_server_callback(CallbackType.PostWrite, self._on_write)
        self._server = server
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, whether the clients have left or not."""
        server, self._server = self._server, None
        if server is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(server.stop(), STOP_S)

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"opc.tcp://{self._host}:{self.port}"

    async def write(self, tag: str, value: float, t_ns: int, quality: int = Quality.GOOD) -> None:
        """Serve a new value [unit of the signal], taken at ``t_ns`` (UTC)."""
        assert self._server is not None  # noqa: S101 - only while serving
        data = ua.DataValue(
            ua.Variant(float(value), ua.VariantType.Double),
            ua.StatusCode(ua.UInt32(_STATUS[Quality(quality)])),
            SourceTimestamp=_EPOCH + timedelta(microseconds=t_ns // 1000),
            ServerTimestamp=ua.DateTime.now(UTC),
        )
        await self._server.write_attribute_value(self._nodes[tag], data)

    async def _secure(self, server: Server) -> None:
        if self._certificate and self._private_key:
            await server.set_application_uri(self.uri)
            await server.load_certificate(self._certificate)
            await server.load_private_key(self._private_key)
            server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        else:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.UserNameIdentityToken if self._users else ua.AnonymousIdentityToken])

    async def _build(self, server: Server) -> None:
        index = await server.register_namespace(self.uri)
        folder = await server.nodes.objects.add_folder(*_named(self._plant.name, index))
        waiting = ua.DataValue(ua.Variant(0.0), ua.StatusCode(ua.UInt32(StatusCodes.BadWaitingForInitialData)))
        for signal in self._signals:
            node = await folder.add_variable(*_named(signal.name, index), 0.0, ua.VariantType.Double)
            await server.write_attribute_value(node.nodeid, waiting)
            await self._describe(node, signal)
            self._nodes[signal.name] = node.nodeid
            self._tags[node.nodeid] = signal.name

    async def _describe(self, node: Node, signal: Signal) -> None:
        """What engineers look for beside a value, and who may write it."""
        text = ua.LocalizedText(signal.description or signal.name)
        await node.write_attribute(AttributeIds.Description, ua.DataValue(ua.Variant(text)))
        unit = ua.EUInformation(NamespaceUri="http://unitsofmeasure.org", DisplayName=ua.LocalizedText(signal.unit))
        await node.add_property(0, "EngineeringUnits", unit)
        if signal.low is not None and signal.high is not None:
            await node.add_property(0, "EURange", ua.Range(signal.low, signal.high))
        if signal.role is Role.MANIPULATED:
            await node.set_writable()

    async def _on_write(self, event: ServerItemCallback, _: Any) -> None:
        """A client has written: what was accepted becomes a setpoint of the plant."""
        if not event.is_external or self._written is None:
            return
        for item, status in zip(event.request_params.NodesToWrite, event.response_params, strict=True):
            tag = self._tags.get(item.NodeId)
            value = item.Value.Value.Value if item.Value is not None and item.Value.Value is not None else None
            if tag is None or not status.is_good() or item.AttributeId != AttributeIds.Value:
                continue
            if isinstance(value, float) and math.isfinite(value):
                self._written(tag, value)
            else:
                log.warning("opc ua: a client wrote %r to %s; expected a finite number", value, tag)


def _named(name: str, index: int) -> tuple[ua.NodeId, ua.QualifiedName]:
    return ua.NodeId(ua.String(name), ua.Int16(index)), ua.QualifiedName(name, index)


class _Users(UserManager):
    """Names and passwords; without any, everybody may read and move setpoints."""

    def __init__(self, users: dict[str, str]) -> None:
        self._users = users

    def get_user(
        self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        """The user, or None where the name or the password is another."""
        if not self._users:
            return User(role=UserRole.User)
        known = self._users.get(username or "")
        if known is None or not hmac.compare_digest((password or "").encode(), known.encode()):
            return None
        return User(role=UserRole.User, name=username)
