import io
import json
from pathlib import Path

import numpy as np
import pytest
from wire_examples import KILN, T0, anomaly, forecast, frame, health, prospect, recommendation

from fusion.errors import FusionError
from fusion.prospects import Refusal
from fusion.publish.encoding import energy_message, to_message
from fusion.publish.messages import SurpriseOut, decode, encode
from fusion.publish.preview import cloud_bytes, picture_png, spectrogram
from fusion.publish.publisher import READ
from fusion.publish.schemas import CHANNELS, MEDIA, MESSAGES, asyncapi, schemas
from fusion.records import Verdict

ROOT = Path(__file__).parents[1]


def test_every_record_survives_the_wire_with_units_and_without_nan():
    for record in (health(), anomaly(), forecast(), recommendation(T0), frame(), prospect(), prospect(Refusal.BUSY)):
        message = to_message(record, KILN, "m1")
        again = decode(encode(message))
        assert again == message
        plain = json.loads(encode(message))
        assert plain["schema"].startswith("fusion.")
        assert plain["time"] == "2027-01-15T08:00:00.000Z"
        assert (plain["plant"], plain["model_id"], plain["t_ns"]) == ("kiln", "m1", T0)


def test_nan_becomes_null_and_numbers_are_short():
    plain = json.loads(encode(to_message(health(), KILN)))
    assert plain["sources"][0]["clock_offset_s"] is None
    assert plain["sources"][0]["rate_hz"] == 12.3457


def test_forecast_carries_controlled_and_manipulated_signals_only():
    message = to_message(forecast(), KILN, "m1")
    assert [c.signal for c in message.signals] == ["TT1", "TIC1.SP"]
    assert message.signals[0].high == [None, None]
    assert len(encode(message)) < 600


def test_frame_leaves_media_out_of_values():
    message = to_message(frame(), KILN)
    assert message.values == {"TT1": 80.1235, "IT1": 4.5}
    assert message.age_s["camera"] == 0.5


def test_recommendation_states_its_expiry_and_both_courses():
    message = to_message(recommendation(T0), KILN)
    assert message.valid_until == "2027-01-15T08:01:00.000Z"
    assert [c.signal for c in message.if_applied] == [c.signal for c in message.if_nothing] == ["TT1"]
    hold = to_message(recommendation(T0, verdict=Verdict.HOLD), KILN)
    assert (hold.verdict, hold.reason, hold.if_applied) == ("hold", "open_anomaly", [])


def test_energy_message_is_rounded():
    surprise = SurpriseOut(name="process.spe", modality="process", value=1 / 3, limit=3.0, p_value=float("inf"))
    message = energy_message(KILN, T0, [surprise], [surprise], p_value=0.2, p_limit=1e-4, model_id="m1")
    assert message.by_modality[0].value == 0.333333
    assert message.by_modality[0].p_value is None


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff\x00", b'{"schema":"fusion.health/9"}', b'{"schema":1}'])
def test_foreign_payload_is_refused_by_name(payload):
    with pytest.raises(FusionError, match="not a message of this version"):
        decode(payload)


def test_schemas_in_docs_are_current():
    folder = ROOT / "docs" / "schema"
    assert {p.name for p in folder.glob("*.json")} == set(schemas())
    for name, schema in schemas().items():
        assert json.loads((folder / name).read_text()) == schema, f"{name}: run fusion.publish.schemas.write_schemas"


def test_the_asyncapi_document_is_current_and_its_references_lead_somewhere():
    document = json.loads((ROOT / "docs" / "asyncapi.json").read_text())
    assert document == asyncapi(), "run fusion.publish.schemas.write_schemas"

    def references(part):
        if isinstance(part, dict):
            yield from [part["$ref"]] if "$ref" in part else (r for value in part.values() for r in references(value))

    for reference in references(document):
        file, _, path = reference.partition("#/")
        place = json.loads((ROOT / "docs" / file).read_text()) if file else document
        for step in filter(None, path.split("/")):
            place = place[step]
        assert place


def test_every_topic_and_kind_is_in_the_asyncapi_document_and_in_the_table_of_the_docs():
    table = (ROOT / "docs" / "mqtt.md").read_text().partition("## What every message has")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    rows = {line.split("`")[1].replace("<", "{").replace(">", "}"): line for line in lines}
    channels = {channel.topic: channel for channel in CHANNELS}
    assert set(rows) == set(channels)
    for topic, row in rows.items():
        assert ("**read**" in row) == (not channels[topic].said_by), topic
        assert (" | yes | " in row) == channels[topic].retained, topic
        if channels[topic].said_by:
            assert f" | {channels[topic].qos} | " in row, topic
    assert {"/".join(levels) for levels in READ} == {c.topic for c in CHANNELS if c.heard_by == "daemon"}
    assert {kind for channel in CHANNELS for kind in channel.kinds} == {*MESSAGES, *MEDIA}


def test_previews_are_small_and_readable():
    picture = np.arange(96 * 96, dtype=np.uint32).reshape(96, 96).astype(np.uint8)
    png = picture_png(np.stack([np.zeros_like(picture), picture]))
    image = pytest.importorskip("PIL.Image")
    with image.open(io.BytesIO(png)) as read:
        np.testing.assert_array_equal(np.asarray(read), picture)
    cloud = np.random.default_rng(0).normal(size=(5760, 4))
    cloud[:4000] = np.nan
    points = np.frombuffer(cloud_bytes(cloud), "<f4").reshape(-1, 4)
    assert points.shape == (1500, 4)
    assert cloud_bytes(np.full((5, 4), np.nan)) == b""
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    message = spectrogram(KILN, KILN.by_name["microphone"], tone, T0)
    assert len(message.columns) == 10
    loudest = message.frequency_hz[int(np.argmax(message.columns[0]))]
    assert abs(loudest - 1000) < 100
