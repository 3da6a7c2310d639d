import asyncio
import json
import os
import signal
import struct
import threading
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from connectors.base import Source
from connectors.kinds import source_of
from connectors.media.config import AudioConfig, VideoConfig
from connectors.media.decode import StreamClock
from connectors.media.pictures import Pictures
from connectors.media.pipe import Job, PipeWriter
from connectors.media.sound import Chunks
from connectors.pipe import SIZES
from fusion.errors import ConfigError
from fusion.health import SourceState
from fusion.recordings.codec import PictureEncoder
from fusion.records import NS_PER_S, Quality, Sample
from tests.contract.peers import (
    PLANT,
    RtspPeer,
    collect,
    free_port,
    picture,
    supervision,
    until,
    write_video,
    write_wav,
)

START = "2026-03-01T00:00:00"
START_NS = 1_772_323_200 * NS_PER_S


def video(file: object, **options: object) -> Source:
    settings = {"url": str(file), "signal": "camera", "realtime": False, "start_time": START}
    return source_of(VideoConfig(**{**settings, "supervision": supervision(), **options}), PLANT)


def audio(file: object, **options: object) -> Source:
    settings = {"url": str(file), "signal": "microphone", "realtime": False, "start_time": START}
    return source_of(AudioConfig(**{**settings, "supervision": supervision(), **options}), PLANT)


async def play(source: Source) -> list[Sample]:
    """Everything a file holds."""
    await source.start()
    items: list[Sample] = []
    try:
        await until(lambda: items.extend(source.drain()) or source.finished)
    finally:
        await source.stop()
    return items


def test_a_video_file_is_played_completely_with_its_times(tmp_path):
    file = write_video(tmp_path / "a.mp4", [picture(i) for i in range(40)])
    source = video(file)
    items = asyncio.run(play(source))
    assert [item.t_ns for item in items] == [START_NS + i * NS_PER_S // 10 for i in range(40)]
    assert np.abs(items[7].value.astype(int) - picture(7)).mean() < 3, "grey as it was encoded, in its full range"
    assert {item.clock for item in items} == {"file:a.mp4"}
    assert source.health().message == f"end of {file}"
    assert source.health().state is SourceState.DOWN


def test_a_picture_size_that_changes_is_rescaled_and_said(tmp_path):
    encoders = [PictureEncoder(size, size, 10) for size in (96, 192, 96)]
    units = [e.encode(picture(i, size)) for e, size in zip(encoders, (96, 192, 96), strict=True) for i in range(5)]
    file = tmp_path / "a.h264"
    file.write_bytes(b"".join(units))
    source = video(file, options={"framerate": "10"})
    items = asyncio.run(play(source))
    assert len(items) == 15
    assert {item.value.shape for item in items} == {(96, 96)}
    assert np.abs(items[7].value.astype(int) - picture(2)).mean() < 8
    assert "picture size changed 2" in source.health().message


def test_a_fast_camera_is_thinned_to_the_signals_period(tmp_path):
    file = write_video(tmp_path / "a.mp4", [picture(i) for i in range(60)], rate=30)
    items = asyncio.run(play(video(file)))
    assert len(items) == pytest.approx(20, abs=1)


@pytest.mark.parametrize(("grey", "condition"), [(100, "frozen"), (17, "black")])
def test_a_frozen_or_black_picture_is_uncertain(tmp_path, grey: int, condition: str):
    still = np.full((96, 96), grey, np.uint8)
    noise = np.random.default_rng(0).integers(0, 4, (30, 96, 96)).astype(np.uint8) * (condition == "black")
    pictures = [picture(0), *(still + some for some in noise)]
    items = asyncio.run(play(video(write_video(tmp_path / "a.mp4", pictures), frozen_after_s=1.0)))
    assert items[1].quality is Quality.GOOD
    assert items[-1].quality is Quality.UNCERTAIN


def test_conditions_by_themselves():
    looks = Pictures((4, 4), 0.1, 1.0)
    frame = av.VideoFrame.from_ndarray(np.full((6, 4), 200, np.uint8), format="yuv420p")
    for i in range(12):
        looks.picture(frame, START_NS + i * NS_PER_S // 10)
    assert looks.conditions == ["frozen"]
    off = Pictures((4, 4), 0.1, 0.0)
    for i in range(12):
        off.picture(frame, START_NS + i * NS_PER_S // 10)
    assert off.conditions == []


def test_colour_where_the_signal_has_it():
    frame = av.VideoFrame.from_ndarray(np.full((12, 8), 128, np.uint8), format="yuv420p")
    coloured = Pictures((4, 6, 3), 0.1, 0.0).picture(frame, 0)
    assert coloured is not None
    assert coloured.shape == (4, 6, 3)


def test_audio_is_resampled_and_cut_into_contiguous_chunks(tmp_path):
    items = asyncio.run(play(audio(write_wav(tmp_path / "a.wav", 2.0, rate=48000))))
    assert len(items) in (19, 20)
    assert {(item.value.shape, item.value.dtype.str) for item in items} == {((1600,), "<f4")}
    assert np.allclose(np.diff([item.t_ns for item in items]), 1e8, atol=1e5)
    sound = np.concatenate([item.value for item in items])
    spectrum = np.abs(np.fft.rfft(sound[:16000]))
    assert spectrum.argmax() == 440
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.02)


def test_a_silent_microphone_is_uncertain_but_still_heard(tmp_path):
    items = asyncio.run(play(audio(write_wav(tmp_path / "a.wav", 3.0, amplitude=0.0), silent_after_s=1.0)))
    assert len(items) >= 29
    assert items[0].quality is Quality.GOOD
    assert items[-1].quality is Quality.UNCERTAIN


def heard(chunks, starts_s):
    """When chunks begin [s] that frames of a sixteenth of a second with these stamps make."""
    found = []
    for start_s in starts_s:
        sound = av.AudioFrame.from_ndarray(np.full((1, 1000), 0.5, np.float32), format="flt", layout="mono")
        sound.sample_rate = 16000
        found += chunks.chunks(sound, int(start_s * 1e9))
    return [t_ns / 1e9 for t_ns, _ in found]


def test_a_hole_in_the_sound_is_never_spanned():
    chunks = Chunks(1600, 16000, 0.0)
    assert heard(chunks, (0.0, 0.0625, 0.125, 5.0, 5.0625)) == [0.0, 5.0]
    assert chunks.jumps == 1


def test_stamps_that_jitter_tear_no_sound_and_those_that_drift_are_followed():
    chunks, late = Chunks(1600, 16000, 0.0), np.random.default_rng(0).exponential(0.012, 800)
    late[50::100] = 0.09
    starts = heard(chunks, np.arange(800) * 0.0625 * 1.0002 + late)
    assert chunks.jumps == 0
    assert len(starts) == 500
    assert np.abs(np.diff(starts) - 0.1).max() < 0.01
    assert abs(starts[-1] - 499 * 0.1 * 1.0002) < 0.03


def test_a_small_hole_in_the_sound_is_one_when_it_stands():
    chunks = Chunks(1600, 16000, 0.0)
    starts = heard(chunks, [0.0625 * i + 0.064 * (i >= 100) for i in range(200)])
    assert chunks.jumps == 1
    assert starts[-1] == pytest.approx(0.0625 * 102 + 0.064 + 60 * 0.1)  # from the third frame behind it on


def test_a_killed_decoder_is_a_lost_source_that_comes_back(tmp_path):
    async def scenario() -> None:
        source = audio(write_wav(tmp_path / "a.wav", 1.0), realtime=True, loop=True, start_time=None)
        await source.start()
        try:
            await collect(source, lambda items: len(items) > 12)
            os.kill(source._driver.pid, signal.SIGKILL)
            await until(lambda: source.epoch == 2 and source.state is SourceState.LIVE)
            (gap,) = source.gaps()
            assert "ended with code -9" in gap.reason
            assert "audio jump" not in source.health().message
        finally:
            await source.stop()

    asyncio.run(scenario())


def test_a_frozen_decoder_is_stale(tmp_path):
    async def scenario() -> None:
        patient = supervision(stale_after_s=1.0, close_timeout_s=1.0)
        source = audio(write_wav(tmp_path / "a.wav", 5.0), realtime=True, start_time=None, supervision=patient)
        await source.start()
        try:
            await collect(source, lambda items: items)
            os.kill(source._driver.pid, signal.SIGSTOP)
            await until(lambda: source.state is SourceState.STALE)
            await until(lambda: source.state is SourceState.LIVE)
        finally:
            await source.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "state"),
    [(b"HTTP/1.1 401 Unauthorized\r\n\r\n", SourceState.REFUSED), (b"", SourceState.DOWN)],
)
def test_a_camera_that_says_no_is_refused_and_no_password_is_shown(answer: bytes, state: SourceState):
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", port := free_port())
        source = video(f"http://127.0.0.1:{port}/camera", username="me", password="hush", start_time=None)
        await source.start()
        try:
            await until(lambda: source.state is state)
            assert f"http://127.0.0.1:{port}/camera" in source.health().message
            assert "hush" not in source.health().message
        finally:
            await source.stop()
            server.close()
            await server.wait_closed()

    asyncio.run(scenario())


def test_a_missing_file_is_down_with_a_message(tmp_path):
    async def scenario() -> None:
        source = video(tmp_path / "none.mp4")
        await source.start()
        await until(lambda: source.state is SourceState.DOWN)
        assert "No such file" in source.health().message
        await source.stop()

    asyncio.run(scenario())


def test_rtsp_pictures_and_sound_carry_the_cameras_clock_and_need_its_password():
    """The camera is 100 s slow, and says so in its sender reports: stamps are exact on its clock."""

    async def scenario() -> None:
        peer = RtspPeer(off_s=-100.0, password="hush")
        await peer.start()
        login = {"username": "fusion", "password": "hush", "start_time": None}
        camera, sound = video(peer.url("camera"), **login), audio(peer.url("microphone"), **login)
        wrong = video(peer.url("camera"), **{**login, "password": "guess"})
        try:
            for source in (camera, sound, wrong):
                await source.start()
            pictures = await collect(camera, lambda items: len(items) >= 5)
            chunks = await collect(sound, lambda items: len(items) >= 5)
            assert {item.clock for item in pictures + chunks} == {"rtsp:127.0.0.1"}
            assert all(abs(item.t_ns + 100e9 - item.received_ns) < 2e9 for item in pictures + chunks)
            assert np.all(np.diff([item.t_ns for item in pictures]) > 5e7)
            assert np.abs(chunks[-1].value).max() == pytest.approx(0.5, abs=0.01)
            await until(lambda: wrong.state is SourceState.REFUSED)
            assert "guess" not in wrong.health().message
        finally:
            for source in (camera, sound, wrong):
                await source.stop()
            await peer.stop()

    asyncio.run(scenario())


class Packet(SimpleNamespace):
    """A packet of a stream of 90 kHz."""

    time_base = Fraction(1, 90_000)

    def has_sidedata(self, kind: str) -> bool:
        return kind == "prft" and self.reference_us is not None

    def get_sidedata(self, kind: str) -> bytes:
        return struct.pack("<qi", self.reference_us, 0)


def test_the_cameras_clock_is_taken_over_when_it_tells_the_time():
    clock = StreamClock(None, grace_ns=NS_PER_S)
    clock.note(Packet(pts=90_000, reference_us=None), START_NS)
    assert clock.name == "arrival"
    assert not clock.settled(START_NS + NS_PER_S // 2)
    assert clock.settled(START_NS + NS_PER_S)
    clock.note(Packet(pts=180_000, reference_us=(START_NS - 5 * NS_PER_S) // 1000), START_NS + NS_PER_S)
    assert clock.name == "device"
    assert clock.t_ns(180_000, Packet.time_base, 0) == START_NS - 5 * NS_PER_S
    clock.note(Packet(pts=270_000, reference_us=0), START_NS)
    assert clock.t_ns(180_000, Packet.time_base, 0) == START_NS - 5 * NS_PER_S
    assert clock.t_ns(None, None, 42) == 42


def test_arrival_times_are_smoothed_towards_the_fastest():
    clock, rng = StreamClock(None), np.random.default_rng(0)
    for i in range(200):
        now_ns = START_NS + i * NS_PER_S // 10 + int(rng.exponential(0.02) * 1e9)
        clock.note(Packet(pts=i * 9000, reference_us=None), now_ns)
    error_s = (clock.t_ns(199 * 9000, Packet.time_base, 0) - START_NS - 19.9e9) / 1e9
    assert abs(error_s) < 0.01


def test_a_slow_reader_costs_a_live_decoder_its_oldest_and_they_are_counted():
    written, release = [], threading.Event()

    class Slow:
        def write(self, data: bytes) -> None:
            release.wait(5)
            written.append(data)

        def flush(self) -> None:
            """Nothing is held back."""

    outlet = PipeWriter(Slow(), live=True)
    writer = threading.Thread(target=outlet.write)
    writer.start()
    for number in range(200):
        outlet.put({"n": number})
    release.set()
    outlet.close()
    writer.join()
    assert len(written) <= 66
    headers = [json.loads(data[SIZES.size :]) for data in written]
    assert headers[-1]["n"] == 199
    assert headers[-1]["lost"] == 200 - len(written)


def test_a_job_survives_the_pipe():
    job = Job(modality="video", url="u", shape=(96, 96), period_s=0.1, live=True, options={"a": "b"})
    assert Job.from_line(job.line()) == job


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"url": "rtsp://me:hush@h/x"}, "password_file"),
        ({"url": "rtsp:///x"}, "rtsp://host:port/path"),
        ({"transport": "icmp"}, "tcp, udp"),
        ({"read_timeout_s": 0}, "read_timeout_s"),
        ({"start_time": "soon"}, "ISO 8601"),
        ({"signal": "microphone"}, "no video signal"),
    ],
)
def test_configuration_errors_name_the_key(options: dict[str, object], key: str):
    with pytest.raises(ConfigError, match=key) as caught:
        video("a.mp4", **options)
    assert "hush" not in str(caught.value)
