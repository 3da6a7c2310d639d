"""What a camera or microphone meets in the field: slices, losses, stereo, stamps that stand still, stalls."""

import asyncio
import contextlib
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.audio.resampler import AudioResampler

import connectors.media.decoder_process
from connectors.media.decode import Decoder, StreamClock
from connectors.media.pipe import Job
from fusion.health import SourceState
from fusion.recordings import codec
from fusion.recordings.codec import PictureEncoder
from fusion.records import NS_PER_S, Quality
from fusion.simulator.servers.rtp import split_nals
from fusion.simulator.servers.rtsp import Listener
from tests.contract.peers import RtspPeer, collect, picture, until
from tests.test_connectors_media import START_NS, Packet, audio, play, video


def sliced(monkeypatch: pytest.MonkeyPatch, key_every: int = 1000) -> None:
    """The simulated camera encodes four slices a picture and sends a key frame only at the start."""
    monkeypatch.setattr(codec, "_X264", codec._X264 + ":slices=4")
    begin = PictureEncoder.__init__
    monkeypatch.setattr(PictureEncoder, "__init__", lambda self, h, w, hz, _=0: begin(self, h, w, hz, key_every))


def test_every_slice_of_the_first_picture_arrives(monkeypatch: pytest.MonkeyPatch):
    """The slices trickle in while the stream is probed; what comes then is not thrown away."""
    sliced(monkeypatch)
    whole = Listener._framed

    async def trickle(self: Listener) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._ready.wait():
                self._ready.clear()
                while self._queue:
                    data = whole(self, self._queue.popleft())
                    while data:
                        size = 4 + int.from_bytes(data[2:4], "big")
                        self._writer.write(data[:size])
                        data = data[size:]
                        await asyncio.sleep(0.01)

    monkeypatch.setattr(Listener, "send", trickle)

    async def scenario() -> None:
        peer = RtspPeer()
        await peer.start()
        source = video(peer.url("camera"), start_time=None)
        await source.start()
        try:
            items = await collect(source, lambda items: len(items) >= 5, 8.0)
            assert {item.quality for item in items} == {Quality.GOOD}
            slope = np.diff(items[0].value.astype(int), axis=0)
            assert np.median(slope, axis=1).min() == pytest.approx(1, abs=1), "no row is grey"
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


def without_slices(unit: bytes, lost: tuple[int, ...]) -> bytes:
    nals = split_nals(unit)
    slices = [place for place, nal in enumerate(nals) if nal[0] & 31 in (1, 5)]
    return b"".join(b"\0\0\0\1" + nal for place, nal in enumerate(nals) if place not in [slices[i] for i in lost])


def test_a_damaged_picture_and_those_built_on_it_are_uncertain(tmp_path, monkeypatch: pytest.MonkeyPatch):
    sliced(monkeypatch, 10)
    encoder = PictureEncoder(96, 96, 10)
    units = [encoder.encode(picture(i)) for i in range(30)]
    units[5] = without_slices(units[5], (1,))
    units[20] = without_slices(units[20], (0, 1))
    file = tmp_path / "a.h264"
    file.write_bytes(b"".join(units))
    items = asyncio.run(play(video(file, options={"framerate": "10"})))
    assert [i for i, item in enumerate(items) if item.quality is Quality.UNCERTAIN] == [*range(5, 10), *range(20, 30)]


def test_a_stream_without_key_frames_is_joined_anywhere_and_heals(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(codec, "_X264", codec._X264 + ":intra-refresh=1")
    monkeypatch.setattr(connectors.media.decode, "HEALED", 20)
    encoder = PictureEncoder(96, 96, 10)
    units = [encoder.encode(picture(i)) for i in range(80)][3:]
    units[40] = units[40][: len(units[40]) // 2]
    outlet: list[dict[str, object]] = []
    file = tmp_path / "a.h264"
    file.write_bytes(b"".join(units))
    job = Job(modality="video", url=str(file), shape=(96, 96), period_s=0.1, live=False, realtime=False)
    job.options = {"framerate": "10"}
    av.logging.set_level(av.logging.INFO)
    try:
        Decoder(job, SimpleNamespace(put=lambda header, payload=b"": outlet.append(header))).run()
    finally:
        av.logging.set_level(None)
    damaged = ["damaged" in header["conditions"] for header in outlet if header["kind"] == "data"]
    first = damaged.index(True)
    assert damaged[first:] == [True] * 20 + [False] * (len(damaged) - first - 20)
    assert first > 15


def test_pictures_whose_stamps_stand_still_all_arrive_and_are_counted(tmp_path):
    live, file = StreamClock(None), StreamClock(START_NS)
    file.step_ns = NS_PER_S // 10
    live.note(Packet(pts=0, reference_us=(START_NS - 5 * NS_PER_S) // 1000), START_NS)
    moments = [START_NS + i * NS_PER_S // 10 for i in range(4)]
    assert [live.t_ns(0, Packet.time_base, now) for now in moments] == [now - 5 * NS_PER_S for now in moments]
    assert [file.t_ns(90, Packet.time_base, 0) for _ in range(4)] == moments
    assert live.standing == file.standing == 3


@pytest.mark.parametrize(("codec_name", "layout"), [("aac", "stereo"), ("libopus", "stereo"), ("pcm_s16le", "stereo")])
def test_stereo_keeps_its_level(tmp_path, codec_name: str, layout: str):
    file = tmp_path / "a.mkv"
    sine = (0.5 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48_000)).astype(np.float32)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec_name, rate=48_000, layout=layout)
        resampler = AudioResampler(format=stream.format.name, layout=layout, rate=48_000)
        for start in range(0, len(sine), 960):
            frame = av.AudioFrame.from_ndarray(np.tile(sine[start : start + 960], (2, 1)), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = 48_000, start
            for ready in resampler.resample(frame):
                container.mux(stream.encode(ready))
        container.mux(stream.encode())
    sound = np.concatenate([item.value for item in asyncio.run(play(audio(file)))])
    assert np.sqrt(np.mean(sound[4800:] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)


def test_a_camera_that_stalls_is_noticed_after_some_of_its_intervals(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connectors.media.decoder_process, "STALLED_S", 0.8)

    async def scenario() -> None:
        peer = RtspPeer()
        await peer.start()
        source = video(peer.url("camera"), start_time=None)
        await source.start()
        try:
            await collect(source, lambda items: len(items) >= 8)
            peer._task.cancel()  # the connection stays
            await until(lambda: source.state is SourceState.STALE, 2.0)
            assert "nothing for 0." in source.health().message
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())
