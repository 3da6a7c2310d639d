"""The client library's own client, made quick where messages arrive.

gmqtt, which parses more cheaply, was looked at and left: it reconnects and acknowledges behind our back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import MessageType, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.properties import VariableByteIntegers

AHEAD_BYTES = 65_536
KIND, QOS, RETAIN = 0xF0, 0x06, 0x01  # bits of the first byte of a packet

Received = Callable[[str, bytes, bool], None]
"""Takes the topic and payload of a message, and whether it was retained."""


class Driver(Client):
    """paho's client, which hands messages of QoS 0 and 1 to ``received``; the rest goes its usual way.

    paho asks the socket for one byte of a packet, another and the rest; here what lies there is read at once. paho
    makes an object of all that a message could have; here a message is topic and payload, and its properties are
    skipped: we take no topic aliases, and nobody reads the others.
    """

    def __init__(self, *arguments: Any, received: Received, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._hand_over = received
        self._ahead, self._at = b"", 0

    @property
    def pending(self) -> bool:
        """Whether bytes wait here that the socket knows nothing of any more."""
        return self._at < len(self._ahead)

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self.pending:
            self._ahead, self._at = super()._sock_recv(AHEAD_BYTES), 0
        taken = self._ahead[self._at : self._at + bufsize]
        self._at += len(taken)
        return taken

    def _packet_handle(self) -> MQTTErrorCode:
        head = self._in_packet["command"]
        if head & KIND != MessageType.PUBLISH or head & QOS > 2:
            return super()._packet_handle()
        packet = self._in_packet["packet"]
        end = at = 2 + int.from_bytes(packet[:2])
        if head & QOS:
            at += 2
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            length, size = VariableByteIntegers.decode(packet[at : at + 4])  # type: ignore[no-untyped-call]
            at += size + length
        if at > len(packet):
            raise MalformedPacket("a message ends before its payload")
        try:
            topic = packet[2:end].decode()
        except UnicodeDecodeError as error:
            raise MalformedPacket(str(error)) from error
        self._hand_over(topic, bytes(packet[at:]), bool(head & RETAIN))
        return (
            self._send_puback(int.from_bytes(packet[end : end + 2])) if head & QOS else MQTTErrorCode.MQTT_ERR_SUCCESS
        )
