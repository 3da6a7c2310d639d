"""Real servers for the connectors to talk to: each can be started, cut and started again on the same port."""

import asyncio
import contextlib
import json
import shutil
import socket
import struct
import subprocess
import time
import wave
from pathlib import Path

import av
import numpy as np
from asyncua import Server, ua

from connectors.base import Source
from connectors.settings import Supervision
from fusion.plant import Modality, Plant, Signal
from fusion.records import Item, Sample
from fusion.simulator.servers.rtsp import RtspServer

PLANT = Plant(
    name="peer",
    signals=(
        *(Signal(name=name) for name in ("TT101", "LT101", "FT101")),
        Signal(name="camera", modality=Modality.VIDEO, shape=(96, 96), period_s=0.1),
        Signal(name="microphone", modality=Modality.AUDIO, shape=(1600,), period_s=0.1),
        Signal(name="lidar", modality=Modality.LIDAR, shape=(5760, 4), period_s=0.1),
    ),
)
QUICK = {"backoff_min_s": 0.05, "backoff_max_s": 0.2, "close_timeout_s": 2.0}


def supervision(**more: object) -> Supervision:
    return Supervision(**{**QUICK, **more})


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition, seconds: float = 15.0):
    """Wait until a condition holds and return what it said; fails loudly after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (said := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.01)
    return said


async def collect(source: Source, enough, seconds: float = 15.0) -> list[Item]:
    """Drain a source until the items so far are enough."""
    items: list[Item] = []

    def more() -> bool:
        items.extend(source.drain())
        return bool(enough(items))

    await until(more, seconds)
    return items


def values(items: list[Item]) -> list[tuple[str, float, int]]:
    """(signal, value, quality) of every process value."""
    return [
        (item.signals[i], float(v), int(q))
        for item in items
        if not isinstance(item, Sample)
        for i, v, q in zip(item.index, item.value, item.quality, strict=True)
    ]


class OpcUaPeer:
    """An asyncua server; ``nodes`` are written by ``feed``. ``namespaces`` are registered in order."""

    URI = "urn:peer"

    def __init__(self, namespaces=(URI,), tags=("TT101", "LT101", "FT101"), passwords=None) -> None:
        self.port = free_port()
        self.namespaces, self.tags, self.passwords = list(namespaces), tags, passwords
        self.nodes = {}
        self.certificates: tuple[str, str] | None = None
        self._server = None

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    async def start(self) -> None:
        users = _Users(self.passwords) if self.passwords else None
        server = Server(user_manager=users)
        await server.init()
        server.set_endpoint(self.url)
        if self.certificates:
            await server.set_application_uri("urn:server")
            await server.load_certificate(self.certificates[0])
            await server.load_private_key(self.certificates[1])
            server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        else:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        if self.passwords:
            server.set_identity_tokens([ua.UserNameIdentityToken])
        for place, uri in enumerate(self.namespaces):
            index = await server.register_namespace(uri)
            for number, tag in enumerate(self.tags):
                await self._add(server, uri, index, tag, float(number) if uri == self.URI else -999.0 - place)
        await server.start()
        self._server = server

    async def _add(self, server, uri, index, tag, value) -> None:
        name = ua.QualifiedName(tag, index)
        self.nodes[uri, tag] = await server.nodes.objects.add_variable(ua.NodeId(tag, index), name, value)

    async def add_tag(self, tag: str, value: float) -> None:
        index = await self._server.get_namespace_index(self.URI)
        await self._add(self._server, self.URI, index, tag, value)

    async def write(self, tag: str, value, status=0, source=None, server=None) -> None:
        data = ua.DataValue(ua.Variant(value), ua.StatusCode(status), SourceTimestamp=source, ServerTimestamp=server)
        node = self.nodes[self.URI, tag]
        await self._server.write_attribute_value(node.nodeid, data)

    async def feed(self, number: int) -> None:
        await self.nodes[self.URI, "TT101"].write_value(float(number))

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop()


class _Users:
    def __init__(self, passwords: dict[str, str]) -> None:
        self._passwords = passwords

    def get_user(self, iserver, username=None, password=None, certificate=None):
        from asyncua.crypto.permission_rules import User, UserRole

        return User(role=UserRole.User) if username and self._passwords.get(username) == password else None


class MqttPeer:
    """mosquitto, with ``passwords`` or open to all."""

    EXECUTABLE = shutil.which("mosquitto") or "/usr/sbin/mosquitto"

    def __init__(self, folder: Path, passwords: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self._folder = folder / f"broker{self.port}"
        self._folder.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._client = None
        access = "allow_anonymous true\n"
        if passwords:
            file = self._folder / "passwords"
            for name, word in passwords.items():
                create = [] if file.exists() else ["-c"]
                subprocess.run(["mosquitto_passwd", "-b", *create, str(file), name, word], check=True)
            access = f"allow_anonymous false\npassword_file {file}\n"
        (self._folder / "conf").write_text(f"user root\nlistener {self.port} 127.0.0.1\n{access}")

    async def start(self) -> None:
        log = subprocess.DEVNULL
        command = [self.EXECUTABLE, "-c", str(self._folder / "conf")]
        self._process = await asyncio.to_thread(subprocess.Popen, command, stdout=log, stderr=log)
        await until(self._listens)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
            return True
        return False

    async def publish(self, topic: str, payload: str | bytes, retain: bool = False) -> None:
        await asyncio.to_thread(self._publish, topic, payload, retain)

    def _publish(self, topic: str, payload: str | bytes, retain: bool) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        if self._client is None:
            self._client = Client(CallbackAPIVersion.VERSION2)
            self._client.connect("127.0.0.1", self.port)
            self._client.loop_start()
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5)

    async def feed(self, number: int) -> None:
        text = json.dumps({"value": number, "t_ns": time.time_ns(), "quality": "good"})
        await self.publish("plant/TT101", text)

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class RtspPeer:
    """An RTSP camera and microphone; their clock is ``off_s`` from ours."""

    def __init__(self, off_s: float = 0.0, password: str | None = None) -> None:
        self.port = free_port()
        self.off_s, self._password = off_s, password
        self._server: RtspServer | None = None
        self._task: asyncio.Task[None] | None = None

    def url(self, name: str) -> str:
        return f"rtsp://127.0.0.1:{self.port}/{name}"

    async def start(self) -> None:
        signals = [PLANT.by_name["camera"], PLANT.by_name["microphone"]]
        server = RtspServer("127.0.0.1", self.port, signals, username="fusion", password=self._password)
        self._server = await server.__aenter__()
        self._task = asyncio.create_task(self._run(self._server))

    async def _run(self, server: RtspServer) -> None:
        number = 0
        while True:
            t_ns = time.time_ns() + int(self.off_s * 1e9)
            server.push("camera", picture(number), t_ns)
            server.push("microphone", tone(number), t_ns - 100_000_000)
            number += 1
            await asyncio.sleep(0.1)

    async def feed(self, number: int) -> None:
        """It sends by itself."""

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None and self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            await server.__aexit__()


class LidarPeer:
    """Sends VLP-16 packets of a round room, with the sensor's clock ``off_s`` from ours."""

    def __init__(self, distance_m: float = 5.0, off_s: float = 0.0) -> None:
        self.port = free_port(socket.SOCK_DGRAM)
        self.distance_m, self.off_s = distance_m, off_s
        self._task: asyncio.Task[None] | None = None

    def packet(self, azimuth: int) -> bytes:
        channel = struct.pack("<HB", round(self.distance_m * 500), 50) * 32
        blocks = b"".join(struct.pack("<HH", 0xEEFF, (azimuth + 300 * b) % 36000) + channel for b in range(12))
        return blocks + struct.pack("<IBB", int((time.time() + self.off_s) * 1e6) % 3_600_000_000, 0x37, 0x22)

    def send(self, data: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(data, ("127.0.0.1", self.port))

    async def start(self) -> None:
        self._task = asyncio.create_task(self._turn())

    async def _turn(self) -> None:
        azimuth = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while True:
                sender.sendto(self.packet(azimuth), ("127.0.0.1", self.port))
                azimuth = (azimuth + 3600) % 36000
                await asyncio.sleep(0.01)

    async def feed(self, number: int) -> None:
        """It turns by itself."""

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})


def picture(number: int, size: int = 96) -> np.ndarray:
    """A test picture: a slope that moves."""
    slope = np.add.outer(np.arange(size), np.arange(size)) * 96 // size
    return (30 + (slope + 5 * number) % 190).astype(np.uint8)


def write_video(file: Path, pictures: list[np.ndarray], rate: int = 10, form: str | None = None) -> Path:
    """Encode grey pictures; where their size changes, the encoder starts anew in the same stream."""
    with av.open(str(file), "w", format=form) as container:
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10", "x264-params": "repeat-headers=1"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = pictures[0].shape
        stream.pix_fmt = "yuv420p"
        for grey in pictures:
            frame = av.VideoFrame(grey.shape[1], grey.shape[0], "yuv420p")
            padded = np.full((frame.planes[0].height, frame.planes[0].line_size), 16, np.uint8)
            padded[: grey.shape[0], : grey.shape[1]] = grey
            frame.planes[0].update(padded.tobytes())
            for plane in frame.planes[1:]:
                plane.update(b"\x80" * plane.buffer_size)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def write_wav(file: Path, seconds: float, rate: int = 16000, amplitude: float = 0.5) -> Path:
    """A tone of 440 Hz."""
    tone = amplitude * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((tone * 32767).astype("<i2").tobytes())
    return file


def tone(number: int) -> np.ndarray:
    """A tenth of a second of a tone of 440 Hz, in phase with the one before."""
    return (0.5 * np.sin(2 * np.pi * 440 * (np.arange(1600) + 1600 * number) / 16000)).astype(np.float32)
