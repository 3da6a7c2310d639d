"""Pictures, sound and point clouds inside MCAP, as Foxglove's well-known messages.

A topic is a signal; publish time is the time at the source, log time that of arrival. Messages are read back in the
order in which they were written, which is the order of arrival.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from foxglove_schemas_protobuf.RawAudio_pb2 import RawAudio
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap_protobuf.writer import Writer
from numpy.typing import NDArray

from fusion.errors import RecordingError
from fusion.plant import Modality, Plant, Signal
from fusion.recordings.codec import PictureDecoder, PictureEncoder, from_pcm, is_key, to_pcm
from fusion.records import Sample

CLOUD_FIELDS = ("x", "y", "z", "intensity")
_MESSAGES: dict[str, Any] = {m.DESCRIPTOR.full_name: m for m in (CompressedVideo, RawAudio, PointCloud)}


class MediaWriter:
    """Appends media samples to an MCAP file; ``exact`` pictures lose nothing."""

    def __init__(self, file: Path, plant: Plant, *, exact: bool = False) -> None:
        self._plant, self._exact = plant, exact
        self._stream = file.open("wb")
        self._writer = Writer(self._stream)
        self._encoders: dict[str, PictureEncoder] = {}
        self._count = 0

    def write(self, sample: Sample) -> None:
        """Append one sample."""
        signal = self._plant.by_name[sample.signal]
        encode = {Modality.VIDEO: self._picture, Modality.AUDIO: _sound, Modality.LIDAR: _cloud}[signal.modality]
        message = encode(signal, sample.value)
        message.timestamp.FromNanoseconds(sample.t_ns)
        self._writer.write_message(signal.name, message, sample.received_ns, sample.t_ns, self._count)
        self._count += 1

    def copy(self, file: Path) -> None:
        """Append every message of another such file, as it is.

        Raises:
            RecordingError: where the file is damaged.
        """
        for topic, message, log_ns, publish_ns in _messages(file):
            self._writer.write_message(topic, message, log_ns, publish_ns, self._count)
            self._count += 1

    def close(self) -> None:
        """Finish the file."""
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._stream.close()

    def _picture(self, signal: Signal, picture: NDArray[Any]) -> Any:
        encoder = self._encoders.get(signal.name)
        if encoder is None:
            height, width = picture.shape[:2]
            encoder = PictureEncoder(height, width, signal.rate_hz, exact=self._exact)
            self._encoders[signal.name] = encoder
        return CompressedVideo(frame_id=signal.name, format="h264", data=encoder.encode(picture))


class MediaReader:
    """Iterates the samples of an MCAP file of a plant's signals, in the order in which they were written."""

    def __init__(self, file: Path, plant: Plant) -> None:
        self._file = file
        self._plant = plant

    def __iter__(self) -> Iterator[Sample]:
        """Decode sample after sample.

        Raises:
            RecordingError: where the file is damaged.
        """
        decoders: dict[str, PictureDecoder] = {}
        for topic, message, log_ns, publish_ns in _messages(self._file):
            if topic not in self._plant.by_name:
                continue
            try:
                value = self._decode(topic, message, decoders)
            except (av.FFmpegError, KeyError, ValueError) as error:
                raise RecordingError(f"{self._file}: damaged or not a media file of ours ({error})") from error
            yield Sample(signal=topic, t_ns=publish_ns, received_ns=log_ns, value=value)

    def _decode(self, topic: str, body: Any, decoders: dict[str, PictureDecoder]) -> NDArray[Any]:
        signal = self._plant.by_name[topic]
        if signal.modality is Modality.VIDEO and topic not in decoders:
            decoders[topic] = PictureDecoder()
        values = list(_decoded(signal, body, decoders.get(topic)))
        if len(values) != 1:
            raise ValueError(f"{topic}: one picture per message expected, found {len(values)}")
        return values[0]


def samples_between(file: Path, signal: Signal, since_ns: int, until_ns: int) -> Iterator[Sample]:
    """The samples of one medium that arrived in a span [UTC ns]; of pictures, from the first key frame on.

    Raises:
        RecordingError: where the file is damaged.
    """
    decoder: PictureDecoder | None = None
    for topic, message, log_ns, publish_ns in _messages(file, signal.name, since_ns, until_ns):
        try:
            if signal.modality is Modality.VIDEO:
                if decoder is None and not is_key(message.data):
                    continue
                decoder = decoder or PictureDecoder()
            for value in _decoded(signal, message, decoder):
                yield Sample(signal=topic, t_ns=publish_ns, received_ns=log_ns, value=value)
        except (av.FFmpegError, ValueError) as error:
            raise RecordingError(f"{file}: damaged or not a media file of ours ({error})") from error


def _decoded(signal: Signal, body: Any, decoder: PictureDecoder | None) -> Iterator[NDArray[Any]]:
    """The value of a message, or the pictures that it completes."""
    if signal.modality is Modality.VIDEO:
        yield from decoder.decode(body.data) if decoder else ()
    elif signal.modality is Modality.AUDIO:
        yield from_pcm(body.data)
    else:
        yield np.frombuffer(body.data, "<f4").reshape(-1, len(CLOUD_FIELDS)).astype(np.float32)


def _messages(
    file: Path, topic: str | None = None, since_ns: int | None = None, until_ns: int | None = None
) -> Iterator[tuple[str, Any, int, int]]:
    """Topic, message, log time and publish time [ns] of everything in a file, in the order in which it was written."""
    try:
        with file.open("rb") as stream:
            found = make_reader(stream).iter_messages(
                topics=topic, starting_at=since_ns, ending_before=until_ns, log_time_order=topic is not None
            )
            for schema, channel, message in found:
                body = _MESSAGES[schema.name if schema else ""]()
                body.ParseFromString(message.data)
                yield channel.topic, body, message.log_time, message.publish_time
    except (OSError, McapError, DecodeError, struct.error, KeyError, ValueError) as error:
        raise RecordingError(f"{file}: damaged or not a media file of ours ({error})") from error


def _sound(signal: Signal, sound: NDArray[Any]) -> Any:
    return RawAudio(data=to_pcm(sound), format="pcm-s16", sample_rate=round(signal.rate_hz), number_of_channels=1)


def _cloud(signal: Signal, points: NDArray[Any]) -> Any:
    packed = np.ascontiguousarray(points, "<f4")
    fields = [
        PackedElementField(name=name, offset=4 * i, type=PackedElementField.FLOAT32)
        for i, name in enumerate(CLOUD_FIELDS)
    ]
    stride = 4 * len(CLOUD_FIELDS)
    message = PointCloud(frame_id=signal.name, point_stride=stride, fields=fields, data=packed.tobytes())
    message.pose.orientation.w = 1.0
    return message
