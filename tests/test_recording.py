import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from mcap.reader import make_reader

from fusion.errors import ConfigError, PlantMismatch, RecordingError
from fusion.plant import Modality, Plant, Signal
from fusion.plant_file import dump_plant, load_plant
from fusion.recordings import tables
from fusion.recordings.codec import PictureDecoder, PictureEncoder
from fusion.recordings.recording import Event, Recording, arrival_ns, recordings_in
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Columns, Item, Quality, Sample
from fusion.timeline.history import frames
from tests.timeline_streams import PLANT, at, cloud, later, picture, rows, seconds, sound

FAULT = Event(
    name="slip", onset_ns=at(5), end_ns=None, ramp_s=2.0, severity=0.5, modalities=("video",), signals=("FT101",)
)


def write(path: Path, items: list[Item], **settings: object) -> Recording:
    with RecordingWriter(path, PLANT, **settings) as writer:  # type: ignore[arg-type]
        for item in items:
            writer.write(item)
        writer.truth({"t_ns": [at(1), at(2)], "wear": [0.1, 0.2]})
    return Recording(path)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    path = tmp_path_factory.mktemp("recording") / "run"
    return write(path, seconds(0, 5), scenario_text="name: x\n", kind="fault", events=[FAULT])


def values(items: list[Item]) -> list[tuple[object, ...]]:
    """Every process value with everything that is known of it."""
    return [
        (item.signals[column], int(t), int(r), float(v), int(q), item.clock)
        for item in items
        if isinstance(item, Columns)
        for column, t, r, v, q in zip(item.index, item.t_ns, item.received_ns, item.value, item.quality, strict=True)
    ]


def media(items: list[Item], name: str) -> list[Sample]:
    return [item for item in items if isinstance(item, Sample) and item.signal == name]


def test_process_values_come_back_exactly_and_in_order_of_arrival(recording: Recording):
    items = list(recording.items())
    assert values(items) == values(seconds(0, 5))
    assert [arrival_ns(item) for item in items] == sorted(arrival_ns(item) for item in items)
    assert all(item.replayed for item in items)
    assert len(recording.columns()) == len(values(items))
    assert recording.columns().clock == "plc"


def test_no_item_holds_a_value_that_arrived_before_an_earlier_item(recording: Recording):
    newest = 0
    for item in recording.items():
        first = item.received_ns if isinstance(item, Sample) else int(item.received_ns.min())
        assert first >= newest
        newest = arrival_ns(item)


def test_media_come_back_with_their_times_quality_and_clock(tmp_path: Path):
    sent = [
        picture(0.1, quality=Quality.UNCERTAIN),
        sound(0.1, quality=Quality.BAD),
        cloud(0.2),
        replace(picture(0.3), clock="rtsp:gate"),
    ]
    items = list(write(tmp_path / "run", sent).items())
    for item, original in zip(items, sorted(sent, key=arrival_ns), strict=True):
        assert isinstance(item, Sample)
        seen = (item.signal, item.t_ns, item.received_ns, item.quality, item.clock, item.replayed)
        wanted = (original.signal, original.t_ns, original.received_ns, original.quality, original.clock, True)
        assert seen == wanted
        assert item.value.dtype == original.value.dtype
        assert item.value.shape == original.value.shape


def test_sound_is_kept_to_sixteen_bits_and_clouds_exactly(tmp_path: Path):
    points = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    loud = np.linspace(-1.2, 1.2, 160, dtype=np.float32)
    items = list(write(tmp_path / "run", [replace(cloud(0.1), value=points), replace(sound(0.1), value=loud)]).items())
    assert np.array_equal(media(items, "scanner")[0].value, points)
    assert np.allclose(media(items, "microphone")[0].value, np.clip(loud, -1, 1), atol=2e-5)


def test_an_empty_cloud_comes_back_empty(tmp_path: Path):
    items = list(write(tmp_path / "run", [cloud(0.1, points=0), cloud(0.3)]).items())
    assert [item.value.shape for item in media(items, "scanner")] == [(0, 4), (8, 4)]


def test_pictures_carry_the_artefacts_of_the_shared_encoder(tmp_path: Path):
    rng = np.random.default_rng(0)
    sent = [replace(picture(0.1 * i), value=rng.integers(0, 255, (16, 16), np.uint8)) for i in range(25)]
    items = list(write(tmp_path / "run", list(sent)).items())
    encoder, decoder = PictureEncoder(16, 16, 10.0), PictureDecoder()
    for item, original in zip(items, sent, strict=True):
        expected = list(decoder.decode(encoder.encode(original.value)))
        assert len(expected) == 1
        assert np.array_equal(item.value, expected[0])
        assert np.abs(item.value.astype(int) - original.value).mean() < 12


def test_media_written_out_of_order_come_back_in_order_of_arrival(tmp_path: Path):
    sent = [picture(0.1 * i, arrival_s=0.1 * i + (0.35 if i % 3 == 0 else 0.0)) for i in range(12)]
    items = list(write(tmp_path / "run", list(sent)).items())
    assert [item.t_ns for item in items] == [s.t_ns for s in sorted(sent, key=arrival_ns)]


def test_heartbeats_and_clocks_come_back(tmp_path: Path):
    sent = [
        rows([("TT101", 0.5, 1.0)], clock="plc", beat_s=0.6),
        rows([("FT101", 0.5, 2.0)], clock="skid", arrival_s=0.7),
        replace(rows([], clock="plc", beat_s=0.9), signals=("FT101", "TT101")),
        rows([("TT101", 1.5, 3.0)], clock="plc"),
    ]
    items = list(write(tmp_path / "run", list(sent)).items())
    beats = [i for i in items if isinstance(i, Columns) and i.heartbeat_ns is not None]
    assert [(b.heartbeat_ns, b.signals, b.clock) for b in beats] == [
        (at(0.6), ("TT101", "FT101", "LIC101.SP"), "plc"),
        (at(0.9), ("FT101", "TT101"), "plc"),
    ]
    assert values(items) == values(list(sent))
    assert Recording(tmp_path / "run").columns().clock == ""
    chunks = list(Recording(tmp_path / "run").chunks(1))
    assert values([batch for _, batches in chunks for batch in batches]) == values(list(sent))
    assert sum(b.heartbeat_ns is not None for _, batches in chunks for b in batches) == 2


def test_a_recording_of_heartbeats_alone(tmp_path: Path):
    recording = write(tmp_path / "run", [rows([], beat_s=0.5)])
    assert len(list(recording.items())) == 1
    assert [len(batches) for _, batches in recording.chunks(10)] == [1]


def test_an_empty_recording(tmp_path: Path):
    recording = write(tmp_path / "run", [])
    assert list(recording.items()) == []
    assert len(recording.columns()) == 0
    assert not recording.has_media
    recording.verify()


def test_many_values_spill_to_disk_and_come_back_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "SPILL_ROWS", 7)
    with RecordingWriter(tmp_path / "run", PLANT) as writer:
        writer._process.spill_rows = 7
        for item in reversed(seconds(0, 10)):
            if isinstance(item, Columns):
                writer.write(item)
    recording = Recording(tmp_path / "run")
    assert recording.manifest["files"].keys() == {"plant.yaml", "process.parquet", "scenario.yaml"}
    assert values(list(recording.items())) == values(seconds(0, 10))


def test_the_manifest_tells_what_it_is(recording: Recording):
    recording.verify()
    assert recording.kind == "fault"
    assert recording.manifest["format"] == "fusion-recording/1"
    assert recording.manifest["plant"] == "small"
    assert recording.events == [FAULT]
    assert recording.span_s == pytest.approx(4.95)
    assert recording.truth()["wear"].to_list() == [0.1, 0.2]
    assert (recording.path / "scenario.yaml").read_text() == "name: x\n"
    assert pl.read_parquet(recording.path / "process.parquet").columns[:3] == ["t_ns", "received_ns", "signal"]


def test_the_media_file_is_plain_foxglove_mcap(recording: Recording):
    with (recording.path / "media.mcap").open("rb") as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        assert summary is not None
        topics = {channel.topic: summary.schemas[channel.schema_id].name for channel in summary.channels.values()}
        assert {chunk.compression for chunk in summary.chunk_indexes} == {"zstd"}
        _, _, message = next(iter(reader.iter_messages(topics=["scanner"])))
    assert topics == {
        "camera": "foxglove.CompressedVideo",
        "microphone": "foxglove.RawAudio",
        "scanner": "foxglove.PointCloud",
    }
    body = PointCloud()
    body.ParseFromString(message.data)
    assert (body.point_stride, [field.name for field in body.fields]) == (16, ["x", "y", "z", "intensity"])
    assert message.publish_time == at(0.13)


def test_a_recording_is_read_as_one_of_a_plant_that_has_less(recording: Recording):
    """A tag and a camera were taken out, another camera is new: it is as if they had been silent."""
    kept = [s for s in PLANT.signals if s.name not in ("FT101", "camera")]
    new = Signal(name="gate", modality=Modality.VIDEO, shape=(8, 8), period_s=0.1)
    plant = Plant(name="small", signals=(new, *reversed(kept)))
    seen, items = recording.of(plant), list(recording.of(plant).items())
    assert {name for name, *_ in values(items)} == {"TT101", "LIC101.SP"}
    assert values(items) == [row for row in values(seconds(0, 5)) if row[0] != "FT101"]
    assert {item.signal for item in items if isinstance(item, Sample)} == {"microphone", "scanner"}
    assert (
        media(items, "microphone")[3].value.tolist() == media(list(recording.items()), "microphone")[3].value.tolist()
    )
    assert len(seen.table()) == len(seen.columns()) == len(values(items))
    whole, less = list(frames(recording)), list(frames(seen))
    assert [frame.t_ns for frame in less] == [frame.t_ns for frame in whole]
    assert [frame.values["TT101"] for frame in less] == [frame.values["TT101"] for frame in whole]
    assert recording.of(PLANT).has_media
    assert not recording.of(Plant(name="small", signals=(new, *kept[:2]))).has_media


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "PT101"}, "signal PT101 is missing"),
        ({"unit": "K"}, "signal TT101: unit Cel, not K"),
        ({"modality": Modality.AUDIO, "shape": (16,)}, "signal TT101: modality process, not audio"),
    ],
)
def test_a_recording_of_other_signals_is_none_of_the_plant(recording: Recording, change: dict[str, object], said: str):
    plant = Plant(name="small", signals=(replace(PLANT.signals[0], **change),))  # type: ignore[arg-type]
    with pytest.raises(PlantMismatch, match=said):
        recording.of(plant)
    with pytest.raises(PlantMismatch, match=r"step_s: 1.0, not 2.0"):
        recording.of(replace(PLANT, step_s=2.0))


def test_a_folder_stands_for_its_recordings_whatever_they_are_called(tmp_path: Path):
    for name in ("week.2", "week.1", "torn.partial", "torn.old"):
        write(tmp_path / name, [])
    assert recordings_in([tmp_path]) == [tmp_path / "week.1", tmp_path / "week.2"]
    assert recordings_in([tmp_path / "week.2"]) == [tmp_path / "week.2"]


def test_an_existing_recording_is_only_overwritten_when_asked(tmp_path: Path):
    write(tmp_path / "run", [])
    with pytest.raises(ConfigError, match="exists already"):
        RecordingWriter(tmp_path / "run", PLANT)
    assert len(write(tmp_path / "run", seconds(0, 1), overwrite=True).columns()) > 0


def test_a_failure_leaves_nothing_behind_and_the_old_recording_in_place(tmp_path: Path):
    write(tmp_path / "run", [])
    with pytest.raises(AttributeError):
        write(tmp_path / "run", [*seconds(0, 1), None], overwrite=True)  # type: ignore[list-item]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(Recording(tmp_path / "run").columns()) == 0


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path):
    with pytest.raises(ConfigError, match="exists already"), RecordingWriter(tmp_path / "run", PLANT):
        (tmp_path / "run").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["process.parquet", "media.mcap", "media.parquet", "truth.parquet", "plant.yaml"])
@pytest.mark.parametrize("keep", [0, 60, 0.5, 0.97])
def test_a_truncated_file_is_named(tmp_path: Path, recording: Recording, name: str, keep: float):
    for file in recording.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises((RecordingError, PlantMismatch), match=name):
        _read_all(Recording(tmp_path))
    if name != "plant.yaml":
        with pytest.raises(RecordingError, match=name):
            Recording(tmp_path).verify()


@pytest.mark.parametrize("name", ["process.parquet", "media.mcap", "media.parquet", "truth.parquet", "plant.yaml"])
def test_a_missing_file_is_named(tmp_path: Path, recording: Recording, name: str):
    for file in recording.path.iterdir():
        if file.name != name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(RecordingError, match=name):
        _read_all(Recording(tmp_path))


def _read_all(recording: Recording) -> None:
    list(recording.items())
    recording.truth()


def test_one_changed_byte_is_found(tmp_path: Path):
    recording = write(tmp_path / "run", seconds(0, 1))
    file = recording.path / "truth.parquet"
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)
    with pytest.raises(RecordingError, match=r"truth\.parquet: damaged"):
        recording.verify()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "missing"),
        ("{", "not JSON"),
        ("[]", "format None"),
        ('{"format": "fusion-recording/9"}', "expected 'fusion-recording/1'"),
        ('{"format": "fusion-recording/1"}', "plant: missing; it is required"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str | None, message: str):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RecordingError, match=rf"manifest\.json.*{message}"):
        Recording(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": ["plant.yaml"]}, r"files: \['plant.yaml'\] is not accepted; expected a mapping"),
        ({"files": {"plant.yaml": {"bytes": 3}}}, r"files\.plant\.yaml\.sha256: missing"),
        ({"files": {}}, r"does not list process\.parquet"),
        ({"t0_ns": "soon"}, "t0_ns: 'soon' is not accepted; expected a whole number"),
        ({"t1_ns": None}, "t1_ns: None is not accepted; expected a whole number"),
        ({"events": {"name": "slip"}}, r"events: .* is not accepted; expected a list"),
        ({"events": [{"name": "slip"}]}, r"events\[0\]\.onset_ns: missing"),
        (
            {"events": [{"name": "slip", "onset_ns": 1, "severty": 1}]},
            r"events\[0\]\.severty: unknown key; accepted: na",
        ),
        ({"events": [3]}, r"events\[0\]: 3 is not accepted; expected a mapping with name"),
    ],
)
def test_a_damaged_manifest_names_file_and_key(tmp_path: Path, change: dict[str, object], message: str):
    file = write(tmp_path / "run", []).path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises((RecordingError, PlantMismatch), match=message) as told:
        Recording(tmp_path / "run")
    assert str(tmp_path / "run") in str(told.value)


def test_an_event_that_was_entered_by_hand_has_a_name_and_its_times(tmp_path: Path):
    file = write(tmp_path / "run", []).path / "manifest.json"
    entered = [{"name": "leak", "onset_ns": 20, "end_ns": 30}, {"name": "slip", "onset_ns": 10}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"events": entered}))
    slip, leak = Recording(tmp_path / "run").events
    assert (slip.name, slip.end_ns, slip.nuisance, slip.severity) == ("slip", None, False, 1.0)
    assert (leak.end_ns, leak.modalities, leak.signals) == (30, (), ())


def test_another_plant_is_refused(tmp_path: Path):
    recording = write(tmp_path / "run", [])
    dump_plant(Plant(name="small", signals=PLANT.signals[:2]), recording.path / "plant.yaml")
    with pytest.raises(PlantMismatch, match=r"plant\.yaml"):
        Recording(recording.path)


def test_a_plant_survives_yaml(tmp_path: Path):
    dump_plant(PLANT, tmp_path / "plant.yaml")
    assert load_plant(tmp_path / "plant.yaml") == PLANT
    assert load_plant(tmp_path / "plant.yaml").fingerprint == PLANT.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nsignals:\n  - {name: a, colour: red}\n", r"plant\.yaml: signals\[0\]\.colour: unknown key"),
        ("name: [", "not YAML"),
        ("", "expected a mapping with name"),
    ],
)
def test_a_plant_that_is_none_names_file_and_key(tmp_path: Path, text: str, message: str):
    (tmp_path / "plant.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_plant(tmp_path / "plant.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_plant(tmp_path / "none.yaml")


def test_a_batch_that_spans_many_seconds_is_cut(tmp_path: Path):
    batch = rows([("TT101", 0.1 * i, float(i)) for i in range(100)])
    items = list(write(tmp_path / "run", [batch, later(picture(5.04), 0)]).items())
    spans = [int(np.ptp(i.received_ns)) for i in items if isinstance(i, Columns)]
    assert len(spans) == 11
    assert max(spans) < NS_PER_S
    assert values(items) == values([batch])


def test_the_manifest_lists_each_file_with_its_hash(recording: Recording):
    manifest = json.loads((recording.path / "manifest.json").read_text())
    assert manifest["files"].keys() == {p.name for p in recording.path.iterdir()} - {"manifest.json"}
    assert all(entry["bytes"] == (recording.path / n).stat().st_size for n, entry in manifest["files"].items())


# --- what a manifest names


def renamed(run: Path, old: str, new: str) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"][new] = manifest["files"].pop(old)
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../secret.yaml", "/etc/hostname", "a/../../secret.yaml", "..", "."])
def test_a_manifest_cannot_name_what_lies_outside_of_its_folder(tmp_path: Path, name: str):
    write(tmp_path / "run", [picture(0.1)])
    (tmp_path / "secret.yaml").write_text("{}")
    renamed(tmp_path / "run", "media.mcap", name)
    with pytest.raises(RecordingError, match=r"manifest\.json: .*leads out of"):
        Recording(tmp_path / "run")


def test_a_file_of_a_recording_cannot_be_a_link_to_elsewhere(tmp_path: Path):
    write(tmp_path / "run", [picture(0.1)])
    (tmp_path / "run" / "media.mcap").rename(tmp_path / "elsewhere")
    (tmp_path / "run" / "media.mcap").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordingError, match=r"media\.mcap: leads out of"):
        Recording(tmp_path / "run")


def test_what_is_read_must_be_listed_with_its_hash(tmp_path: Path):
    write(tmp_path / "run", [picture(0.1)])
    renamed(tmp_path / "run", "process.parquet", "process.old")
    with pytest.raises(RecordingError, match=r"does not list process\.parquet"):
        Recording(tmp_path / "run")


def test_recordings_share_their_plant_and_another_description_is_refused_all_the_same(tmp_path):
    first, second = (write(tmp_path / name, seconds(0, 1)) for name in ("a", "b"))
    assert first.plant is second.plant
    dump_plant(replace(PLANT, name="other"), tmp_path / "b" / "plant.yaml")
    with pytest.raises(PlantMismatch, match="not the plant this recording was made of"):
        Recording(tmp_path / "b")
    assert Recording(tmp_path / "a").plant is first.plant
