import asyncio
import contextlib
import re
import struct
import time

import av
import numpy as np
import pytest

from fusion.errors import ConfigError
from fusion.plant import Modality, Signal
from fusion.records import NS_PER_S
from fusion.simulator.servers.rtp import PAYLOAD_BYTES, RtpStream, SoundPayload, Unit, fragments, split_nals
from fusion.simulator.servers.rtsp import QUEUE_UNITS, Listener, RtspServer

CAMERA = Signal(name="camera", modality=Modality.VIDEO, shape=(96, 96), period_s=0.1)
MICROPHONE = Signal(name="microphone", modality=Modality.AUDIO, shape=(1600,), period_s=0.1)
OFF_NS = 7 * NS_PER_S  # the camera's clock is seven seconds ahead of ours
T_NS = 1_800_000_000_123_456_000


# -- RTP


def test_long_nal_travels_in_fragments():
    nal = bytes([0x65]) + bytes(range(1, 256)) * 20
    parts = fragments(nal)
    assert all(len(p) <= PAYLOAD_BYTES for p in parts)
    assert [p[1] >> 6 for p in parts] == [0b10, *[0] * (len(parts) - 2), 0b01]
    assert bytes([parts[0][0] & 0xE0 | parts[0][1] & 31]) + b"".join(p[2:] for p in parts) == nal
    assert fragments(b"\x65short") == [b"\x65short"]


def test_nals_are_split_at_both_start_codes():
    assert split_nals(b"\0\0\0\1\x67a\0\0\1\x68b\0\0\0\1\x65c") == [b"\x67a", b"\x68b", b"\x65c"]


def test_sound_is_network_order_in_even_packets():
    parts, key = SoundPayload(16000).cut(np.linspace(-1, 1, 1600, dtype=np.float32))
    assert key
    assert [ticks for ticks, _ in parts] == [0, 534, 1068]
    samples = np.frombuffer(b"".join(data for _, data in parts), ">i2")
    assert (len(samples), samples[0], samples[-1]) == (1600, -32767, 32767)


def reports(stream, times_ns):
    return [stream.unit(np.zeros(160, np.float32), t) for t in times_ns]


def test_sender_report_carries_the_time_of_the_source():
    unit = reports(RtpStream(SoundPayload(16000)), [T_NS])[0]
    _, kind, _, _, seconds, fraction, stamp, _, _ = struct.unpack(">BBHIIIIII", unit.report[:28])
    assert kind == 200
    assert abs((seconds - 2_208_988_800) * NS_PER_S + (fraction * NS_PER_S >> 32) - T_NS) < 2
    assert stamp == struct.unpack(">BBHII", unit.packets[0][:12])[3]


def test_report_is_due_each_second_and_when_stamps_wrap():
    stream = RtpStream(SoundPayload(16000))
    assert [u.report_due for u in reports(stream, [T_NS + i * NS_PER_S // 2 for i in range(5)])] == [1, 0, 1, 0, 1]
    wrapping = RtpStream(SoundPayload(16000))
    wrapping._base = -(T_NS * 16000 // NS_PER_S) - 1600
    assert [u.report_due for u in reports(wrapping, [T_NS, T_NS + NS_PER_S // 5])] == [1, 1]


class Sink:
    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data

    async def drain(self):
        await asyncio.sleep(0)


def test_slow_listener_loses_whole_units_up_to_a_key():
    async def scenario():
        sink = Sink()
        listener = Listener((0, 1), sink)
        for i in range(QUEUE_UNITS + 5):
            key = i in (0, QUEUE_UNITS + 3)
            listener.offer(Unit(packets=(bytes([i]),), report=b"", report_due=False, key=key))
        task = asyncio.create_task(listener.send())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        return listener.dropped, [packet for packet in sink.data.split(b"$\0\0\1") if packet][-2:]

    assert asyncio.run(scenario()) == (QUEUE_UNITS + 3, [bytes([QUEUE_UNITS + 3]), bytes([QUEUE_UNITS + 4])])


# -- RTSP


def slope(number):
    return (40 + (np.add.outer(np.arange(96), np.arange(96)) + 5 * number) % 160).astype(np.uint8)


async def feed(server, tone=440.0):
    """Pictures and sound ten times a second, each chunk when it is complete, stamped by a clock of their own."""
    start_ns = time.time_ns() + OFF_NS
    for number in range(10_000):
        t_ns = start_ns + number * 100_000_000
        server.push("camera", slope(number), t_ns)
        phase = 2 * np.pi * tone * (np.arange(1600) + 1600 * number) / 16000
        server.push("microphone", (0.5 * np.sin(phase)).astype(np.float32), t_ns)
        await asyncio.sleep(max((t_ns - OFF_NS + 100_000_000 - time.time_ns()) / NS_PER_S, 0))


def read(url, count):
    """Frames as (source time by start_time_realtime, array) and times by the producer reference."""
    frames, produced = [], []
    options = {"rtsp_transport": "tcp", "fpsprobesize": "1"}
    with av.open(url, options=options, timeout=(5, 5)) as container:
        stream = container.streams[0]
        for packet in container.demux(stream):
            if packet.pts is not None and packet.has_sidedata("prft"):
                produced.append(struct.unpack_from("<q", bytes(packet.get_sidedata("prft")))[0] / 1e6)
            for frame in packet.decode():
                if frame.pts is not None:
                    seconds = container.start_time_realtime / 1e6 + float(frame.pts * frame.time_base)
                    frames.append((seconds, frame.to_ndarray()))
            if len(frames) >= count:
                return frames, produced
    raise AssertionError("the stream ended")


@contextlib.asynccontextmanager
async def fed(**login):
    async with RtspServer("127.0.0.1", 0, [CAMERA, MICROPHONE], **login) as server:
        feeder = asyncio.create_task(feed(server))
        try:
            yield server
        finally:
            feeder.cancel()
            await asyncio.wait([feeder])


def test_camera_and_microphone_are_read_with_the_clock_of_the_source():
    async def scenario():
        async with fed() as server:
            started_s = (time.time_ns() + OFF_NS) / NS_PER_S
            reads = [asyncio.to_thread(read, server.url(name), n) for name, n in (("camera", 6), ("microphone", 12))]
            found = await asyncio.gather(*reads)
            return started_s, time.time() + OFF_NS / NS_PER_S, *found

    started_s, ended_s, (pictures, produced), (sounds, heard) = asyncio.run(scenario())
    for times in ([t for t, _ in pictures], produced, [t for t, _ in sounds], heard):
        assert started_s - 0.15 < times[0] < times[-1] < ended_s
    numbers = [(t - pictures[0][0]) / 0.1 for t, _ in pictures]
    assert np.abs(np.subtract(numbers, np.round(numbers))).max() < 0.05
    first = int(np.argmin([np.abs(slope(n)[:96] - pictures[0][1][:96].astype(float)).mean() for n in range(200)]))
    for step, (_, picture) in zip(np.round(numbers), pictures, strict=True):
        assert np.abs(picture[:96].astype(float) - slope(first + int(step))).mean() < 4
    spacing = np.diff([t for t, _ in sounds])
    assert np.abs(spacing - [len(s[0]) / 16000 for _, s in sounds[:-1]]).max() < 0.002
    assert np.abs(np.concatenate([s[0] for _, s in sounds])).max() == pytest.approx(0.5 * 32767, rel=0.01)


def test_sound_keeps_its_source_time_within_50_ms():
    """A click at a known source time is found at that time."""

    async def scenario():
        async with RtspServer("127.0.0.1", 0, [MICROPHONE]) as server:
            task = asyncio.create_task(asyncio.to_thread(read, server.url("microphone"), 30))
            start_ns, number, clicks = time.time_ns() + OFF_NS, 0, []
            while not task.done():
                chunk = np.zeros(1600, np.float32)
                if number % 3 == 0:
                    chunk[800] = 1.0
                    clicks.append((start_ns + number * 100_000_000) / NS_PER_S + 0.05)
                server.push("microphone", chunk, start_ns + number * 100_000_000)
                number += 1
                await asyncio.sleep(0.02)
            return clicks, (await task)[0]

    clicks, frames = asyncio.run(scenario())
    heard = [t + int(np.argmax(s[0])) / 16000 for t, s in frames if s.max() > 30000]
    assert heard
    assert all(min(abs(t - c) for c in clicks) < 0.002 for t in heard)


async def talk(port, *requests):
    """Status codes of raw requests on one connection, and the bytes that follow the last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    codes = []
    for number, request in enumerate(requests):
        writer.write((request.replace("\n", "\r\n") + f"\r\nCSeq: {number}\r\n\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        codes.append(int(head.split(" ")[1]))
        if found := re.search(r"Content-Length: (\d+)", head):
            await reader.readexactly(int(found[1]))
    return codes, reader, writer


async def codes_of(port, *requests):
    codes, _, writer = await talk(port, *requests)
    writer.close()
    await writer.wait_closed()
    return codes


SETUP = "SETUP rtsp://h/camera/trackID=0 RTSP/1.0\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1"


def test_requests_are_answered_as_the_standard_asks():
    async def scenario():
        async with RtspServer("127.0.0.1", 0, [CAMERA]) as server:
            return await codes_of(
                server.port,
                "OPTIONS * RTSP/1.0",
                "DESCRIBE rtsp://h/nothing RTSP/1.0",
                "DESCRIBE rtsp://h/camera RTSP/1.0",
                "PLAY rtsp://h/camera RTSP/1.0",
                "SETUP rtsp://h/camera/trackID=0 RTSP/1.0\nTransport: RTP/AVP;unicast;client_port=1-2",
                SETUP,
                SETUP,
                "GET_PARAMETER rtsp://h/camera RTSP/1.0",
                "RECORD rtsp://h/camera RTSP/1.0",
                "TEARDOWN rtsp://h/camera RTSP/1.0",
            ), await codes_of(server.port, "what is this")

    assert asyncio.run(scenario()) == ([200, 404, 200, 455, 461, 200, 455, 200, 501, 200], [400])


def test_who_joins_late_begins_with_a_key_frame_and_a_report():
    async def scenario():
        async with RtspServer("127.0.0.1", 0, [CAMERA]) as server:
            first = await talk(server.port, SETUP, "PLAY rtsp://h/camera RTSP/1.0")
            for number in range(4):
                server.push("camera", slope(number), T_NS + number)
            late = await talk(server.port, SETUP, "PLAY rtsp://h/camera RTSP/1.0")
            server.push("camera", slope(4), T_NS + 4)
            seen = []
            for _ in range(3):
                _, channel, length = struct.unpack(">cBH", await late[1].readexactly(4))
                data = await late[1].readexactly(length)
                seen.append((channel, data[1] if channel else data[12] & 31))
            for _, _, writer in (first, late):
                writer.close()
                await writer.wait_closed()
            return seen

    assert asyncio.run(scenario()) == [(1, 200), (0, 7), (0, 8)]


def test_wrong_password_is_refused():
    async def scenario():
        async with fed(username="eye", password="s3cret") as server:
            address = server.url("camera").replace("//", "//eye:{}@")
            with pytest.raises(av.error.HTTPUnauthorizedError):
                await asyncio.to_thread(read, address.format("wrong"), 1)
            frames, _ = await asyncio.to_thread(read, address.format("s3cret"), 1)
            return len(frames)

    assert asyncio.run(scenario()) == 1


def test_server_leaves_while_clients_listen_and_frees_its_port():
    async def scenario():
        async with RtspServer("127.0.0.1", 0, [CAMERA]) as server:
            _, _, writer = await talk(server.port, SETUP, "PLAY rtsp://h/camera RTSP/1.0")
            port = server.port
            with pytest.raises(ConfigError, match=f"rtsp_port: 127.0.0.1:{port} is in use"):
                await RtspServer("127.0.0.1", port, [CAMERA]).__aenter__()
            assert server.clients == 1
        assert server.clients == 0
        writer.close()
        async with RtspServer("127.0.0.1", port, [CAMERA]):
            pass

    asyncio.run(scenario())


def test_only_grey_video_and_audio_can_be_streamed():
    with pytest.raises(ValueError, match="only grey video and audio"):
        RtspServer("127.0.0.1", 0, [Signal(name="TT1")])
