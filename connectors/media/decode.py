"""The decoder process: opens one camera, microphone or file, decodes it and writes arrays to its standard output.

Run as ``python -m connectors.media.decode`` with a job on the first line of standard input; it ends when that input
ends, so it never outlives the daemon. A decoder that crashes is a lost source, not a lost daemon.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import av
from av.audio.frame import AudioFrame
from av.container.input import InputContainer
from av.error import FFmpegError, HTTPForbiddenError, HTTPUnauthorizedError, InvalidDataError
from av.video.frame import VideoFrame

from connectors.media.pictures import Pictures
from connectors.media.pipe import Job, PipeWriter
from connectors.media.sound import Chunks

REFERENCE_TIME = struct.Struct("<q")
DAY_NS = 86_400_000_000_000
NS_PER_S = 1_000_000_000
GRACE_NS = 1_500_000_000
GOOD, UNCERTAIN = 2, 1
DAMAGES = ("concealing", "RTP: missed")
"""How messages begin that tell of damage, but are no errors to the library."""
HEALED = 300
HARMLESS = ("SEI", "APP fields")
"""What errors are about that leave the picture whole: remarks of the camera's maker."""


class StreamClock:
    """Wall-clock time of presentation stamps.

    A camera that sends RTCP sender reports says it itself (``device``); until it does, time is that of arrival, with
    the transport's jitter smoothed towards the fastest packets (``arrival``). A file begins at ``start_ns``
    (``file``); where it has no stamps, its frames are ``step_ns`` apart.
    """

    def __init__(self, start_ns: int | None, grace_ns: int = 0) -> None:
        self._offset_ns = start_ns
        self._grace_ns = grace_ns
        self._first_ns: int | None = None
        self._next_ns = 0
        self._last: tuple[int, int] | None = None
        self.step_ns = 0
        self.standing = 0
        self.name = "arrival" if start_ns is None else "file"

    def note(self, packet: av.Packet[Any], now_ns: int) -> None:
        """Learn from a packet that arrived at ``now_ns`` (UTC)."""
        if self.name == "file" or packet.pts is None:
            return
        self._first_ns = self._first_ns or now_ns
        stamp_ns = stream_ns(packet.pts, packet.time_base)
        if packet.has_sidedata("prft"):
            reference_ns = REFERENCE_TIME.unpack_from(bytes(packet.get_sidedata("prft")))[0] * 1000
            if abs(reference_ns - now_ns) < DAY_NS:
                self.name, self._offset_ns = "device", reference_ns - stamp_ns
        if self.name == "arrival":
            self._follow(now_ns - stamp_ns)

    def _follow(self, offset_ns: int) -> None:
        """Fast towards less delay, slow towards more, at once over a jump."""
        if self._offset_ns is None or abs(offset_ns - self._offset_ns) > NS_PER_S // 2:
            self._offset_ns = offset_ns
        step_ns = offset_ns - self._offset_ns
        self._offset_ns += step_ns // 2 if step_ns < 0 else step_ns // 100

    def settled(self, now_ns: int) -> bool:
        """Whether to believe the stamps: the first report may still be on its way for ``grace_ns``."""
        return self.name != "arrival" or now_ns - (self._first_ns or now_ns) >= self._grace_ns

    def t_ns(self, pts: int | None, time_base: Fraction | None, now_ns: int) -> int:
        """UTC of a frame; one without a stamp is of now, and stamps that stand still go on by arrival."""
        stamp_ns = None if pts is None or time_base is None else stream_ns(pts, time_base)
        stands = stamp_ns is not None and self._last is not None and stamp_ns == self._last[0]
        self.standing += stands
        if self.name == "file":
            self._last = None if stamp_ns is None else (stamp_ns, now_ns)
            return self._file_ns(None if stands else stamp_ns)
        if stamp_ns is None or self._offset_ns is None:
            return now_ns
        if self._last is None or not stands:
            self._last = stamp_ns, now_ns
        return stamp_ns + self._offset_ns + now_ns - self._last[1]

    def _file_ns(self, stamp_ns: int | None) -> int:
        """A frame without a stamp is one step after the frame before."""
        stamp_ns = self._next_ns if stamp_ns is None else stamp_ns
        self._next_ns = stamp_ns + self.step_ns
        self._first_ns = stamp_ns if self._first_ns is None else self._first_ns
        return (self._offset_ns or 0) + stamp_ns - self._first_ns


def is_damage(complaint: tuple[int, str, str]) -> bool:
    """Whether what the library logged (level, who, text) means that a picture or sound is not as it was sent."""
    level, _, text = complaint
    error = level <= av.logging.ERROR and not any(word in text for word in HARMLESS)
    return error or text.startswith(DAMAGES)


def stream_ns(pts: int, time_base: Fraction) -> int:
    """A presentation stamp in nanoseconds of the stream's own axis."""
    return int(pts * time_base * NS_PER_S)


class Decoder:
    """Decodes what one job names and puts it into the outlet."""

    def __init__(self, job: Job, outlet: PipeWriter) -> None:
        self._job = job
        self._outlet = outlet
        self._start_ns = job.start_ns if job.start_ns is not None else time.monotonic_ns() + job.utc_offset_ns
        grace_ns = GRACE_NS if job.url.startswith("rtsp") else 0
        self._clock = StreamClock(None, grace_ns) if job.live else StreamClock(self._start_ns)
        self._undecodable = 0
        self._standing = 0
        self._complaints: list[tuple[int, str, str]] = []
        self._healing = 0
        self._begun = False
        self._paced_from: tuple[float, int] | None = None
        self._end_ns = self._start_ns
        rate_hz = round(job.shape[0] / job.period_s)
        self._pictures = Pictures(job.shape, job.period_s, job.frozen_after_s) if job.modality == "video" else None
        self._chunks = Chunks(job.shape[0], rate_hz, job.frozen_after_s) if job.modality == "audio" else None

    def run(self) -> None:
        """Decode to the end; a looped file begins again where it ended."""
        while True:
            with av.logging.Capture() as self._complaints, self._open() as container:
                self._decode(container)
            if not self._job.loop or self._job.live or self._end_ns <= self._start_ns:
                return
            self._start_ns = self._end_ns
            if self._chunks is not None:
                self._chunks.restart()
            self._standing += self._clock.standing
            self._clock = StreamClock(self._start_ns)

    def _open(self) -> InputContainer:
        limits = (self._job.open_timeout_s, self._job.read_timeout_s)
        return av.open(self._job.url, options=self._job.options, timeout=limits)

    def _decode(self, container: InputContainer) -> None:
        streams = container.streams.video if self._job.modality == "video" else container.streams.audio
        if not streams:
            raise InvalidDataError(0, f"no {self._job.modality} in this stream")
        stream = streams[0]
        stream.codec_context.thread_count = 1  # frame threads would hold pictures back, and none may log
        self._outlet.put({"kind": "opened", "what": f"{stream.codec_context.name} {stream.type}"})
        rate = getattr(stream, "average_rate", None)
        self._clock.step_ns = int(NS_PER_S / rate) if rate else round(self._job.period_s * NS_PER_S)
        self._complaints.clear()  # those of the probe come again
        for packet in container.demux(stream):
            mono_ns = time.monotonic_ns()
            now_ns = mono_ns + self._job.utc_offset_ns
            self._clock.note(packet, now_ns)
            for frame in self._frames(packet):
                t_ns = self._clock.t_ns(frame.pts, frame.time_base, now_ns)
                if self._clock.settled(now_ns):
                    self._deliver(frame, t_ns, mono_ns)

    def _frames(self, packet: av.Packet[Any]) -> list[Any]:
        """What a packet completes. Pictures stay damaged up to the next whole key frame, sound up to the next chunk.

        What comes before the first picture is no damage: a stream is joined anywhere. Streams without key frames heal
        with ``HEALED`` whole pictures.
        """
        try:
            frames = packet.decode()
        except InvalidDataError:
            self._undecodable += 1
            frames = []
        broken = packet.is_corrupt or any(map(is_damage, self._complaints)) or any(f.is_corrupt for f in frames)
        self._complaints.clear()
        self._begun |= bool(frames)
        if broken:
            self._healing = HEALED * self._begun
        elif any(isinstance(f, VideoFrame) and f.key_frame for f in frames):
            self._healing = 0
        else:
            self._healing = max(self._healing - len(frames), 0)
        return frames

    def _deliver(self, frame: Any, t_ns: int, mono_ns: int) -> None:
        for start_ns, array in self._arrays(frame, t_ns):
            if self._clock.name == "file":
                self._end_ns = start_ns + round(self._job.period_s * NS_PER_S)
                self._pace(self._end_ns if self._chunks else start_ns)
                mono_ns = time.monotonic_ns()
            conditions = self._conditions
            header = {
                "kind": "data",
                "t_ns": start_ns,
                "mono_ns": mono_ns,
                "clock": self._clock.name,
                "quality": UNCERTAIN if conditions else GOOD,
                "conditions": conditions,
                "noted": self._noted(),
                "dtype": array.dtype.str,
                "shape": array.shape,
            }
            self._outlet.put(header, array.tobytes())
            self._healing *= self._pictures is not None

    def _arrays(self, frame: VideoFrame | AudioFrame, t_ns: int) -> Iterator[tuple[int, Any]]:
        if self._pictures is not None and isinstance(frame, VideoFrame):
            picture = self._pictures.picture(frame, t_ns)
            if picture is not None:
                yield t_ns, picture
        elif self._chunks is not None and isinstance(frame, AudioFrame):
            yield from self._chunks.chunks(frame, t_ns)

    @property
    def _conditions(self) -> list[str]:
        looks = self._pictures or self._chunks
        return [*(looks.conditions if looks else ()), *["damaged"] * (self._healing > 0)]

    def _noted(self) -> dict[str, int]:
        found = {
            "undecodable packet": self._undecodable,
            "stamp stands still": self._standing + self._clock.standing,
            "picture size changed": self._pictures.size_changes if self._pictures else 0,
            "audio jump": self._chunks.jumps if self._chunks else 0,
        }
        return {name: number for name, number in found.items() if number}

    def _pace(self, t_ns: int) -> None:
        """Wait until a file's moment has come, where it is played in real time."""
        if not self._job.realtime:
            return
        if self._paced_from is None:
            self._paced_from = (time.monotonic(), t_ns)
        started_s, from_ns = self._paced_from
        time.sleep(max(started_s + (t_ns - from_ns) / NS_PER_S - time.monotonic(), 0.0))


def run(job: Job, stream: BinaryIO) -> None:
    """Do a job, and say how it ended."""
    av.logging.set_level(av.logging.INFO)  # at which repaired damage is said
    av.logging.set_skip_repeated(False)
    outlet = PipeWriter(stream, job.live)
    writer = threading.Thread(target=outlet.write, daemon=True)
    writer.start()
    try:
        Decoder(job, outlet).run()
    except (HTTPUnauthorizedError, HTTPForbiddenError) as error:
        outlet.put({"kind": "error", "refused": True, "text": error.strerror})
    except (FFmpegError, OSError, ValueError) as error:
        outlet.put(
            {
                "kind": "error",
                "refused": False,
                "text": getattr(error, "strerror", None) or str(error) or type(error).__name__,
            }
        )
    else:
        outlet.put({"kind": "end"})
    outlet.close()
    writer.join()


def main() -> None:
    """Read the job, watch for the end of the parent, decode."""
    job = Job.from_line(sys.stdin.buffer.readline())

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    run(job, sys.stdout.buffer)
    os._exit(0)


if __name__ == "__main__":
    main()
