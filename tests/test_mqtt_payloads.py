"""What gateways really send, and what nobody should: values, times and qualities out of MQTT payloads."""

import numpy as np
import pytest

from connectors.base import Tally
from connectors.mqtt.config import TopicConfig
from connectors.mqtt.payload import Extractor, Reading, document_of
from tests.test_connectors_mqtt import HUGE, NOW_NS


def read(payload: bytes, **options: object) -> tuple[list[Reading], Tally]:
    """What one topic's settings take out of a payload."""
    tally = Tally()
    extractor = Extractor(TopicConfig(topic="t", signal="TT101", **options), "TT101", 0, tally)
    return [*extractor.readings(document_of(payload, extractor.plain), NOW_NS, False)], tally


@pytest.mark.parametrize(
    ("payload", "options", "value", "quality", "t_ns"),
    [
        (b"1.5", {"format": "plain"}, 1.5, 2, None),
        (b" true\n", {"format": "plain"}, 1.0, 2, None),
        (b"nan", {"format": "plain"}, np.nan, 0, None),
        (b"1e999", {"format": "plain"}, np.nan, 0, None),
        (b'{"value": 3}', {}, 3.0, 2, None),
        (b'{"value": false}', {}, 0.0, 2, None),
        (b'{"d": [{"v": 4}]}', {"value_path": "d.0.v"}, 4.0, 2, None),
        (b'{"d": [{"v": 4}]}', {"value_path": "d.7.v"}, np.nan, 0, None),
        (b"5", {"value_path": ""}, 5.0, 2, None),
        (b'{"value": 3, "t": 1800000000000}', {"time_path": "t", "time_unit": "ms"}, 3.0, 2, NOW_NS),
        (b'{"value": 3, "t": 1800000000.5}', {"time_path": "t", "time_unit": "s"}, 3.0, 2, NOW_NS + 500_000_000),
        (b'{"value": 3, "t": "2027-01-15T08:00:00Z"}', {"time_path": "t", "time_unit": "iso"}, 3.0, 2, NOW_NS),
        (b'{"value": 3, "t": "2027-01-15T09:00:00+01:00"}', {"time_path": "t", "time_unit": "iso"}, 3.0, 2, NOW_NS),
        (b'{"value": 3, "t": "soon"}', {"time_path": "t", "time_unit": "iso"}, 3.0, 2, None),
        (b'{"value": 3, "t": 12}', {"time_path": "t"}, 3.0, 2, None),
        (b'{"value": 3, "t": 1e305}', {"time_path": "t", "time_unit": "s"}, 3.0, 2, None),
        (b'{"value": 3, "t": %s}' % HUGE, {"time_path": "t", "time_unit": "s"}, 3.0, 2, None),
        (b'{"value": %s}' % HUGE, {}, np.nan, 0, None),
        (b'{"value": -%s}' % HUGE, {}, np.nan, 0, None),
        (HUGE, {"format": "plain"}, np.nan, 0, None),
        (b'{"value": 3, "q": %s}' % HUGE, {"quality_path": "q"}, 3.0, 1, None),
        (b'{"value": 3, "q": "BAD"}', {"quality_path": "q"}, 3.0, 0, None),
        (b'{"value": 3, "q": "uncertain"}', {"quality_path": "q"}, 3.0, 1, None),
        (b'{"value": 3, "q": true}', {"quality_path": "q"}, 3.0, 2, None),
        (b'{"value": 3, "q": 2150891520}', {"quality_path": "q"}, 3.0, 0, None),
        (b'{"value": 3, "q": [1]}', {"quality_path": "q"}, 3.0, 1, None),
        (b'{"value": 3}', {"quality_path": "q"}, 3.0, 1, None),
        (b'{"value": 3}', {"quality_path": "q", "quality_missing": "good"}, 3.0, 2, None),
        (b'{"value": 3, "q": 0}', {"quality_path": "q"}, 3.0, 2, None),
        (b'{"value": 3, "q": 0}', {"quality_path": "q", "quality_code": "opcda"}, 3.0, 0, None),
        (b'{"value": 3, "q": 64}', {"quality_path": "q", "quality_code": "opcda"}, 3.0, 1, None),
        (b'{"value": 3, "q": 216}', {"quality_path": "q", "quality_code": "opcda"}, 3.0, 2, None),
        (b'{"value": 3, "q": 1}', {"quality_path": "q", "quality_code": "profibus"}, 3.0, 1, None),
        (b'{"value": 3, "q": 3}', {"quality_path": "q", "quality_code": "profibus"}, 3.0, 2, None),
        (b'{"value": 3, "q": 192}', {"quality_path": "q", "quality_code": "profibus"}, 3.0, 1, None),
        (b'{"value": %s}' % (HUGE * 20), {}, np.nan, 0, None),
        (b'{"value": 1, "t": %s}' % (HUGE * 20), {"time_path": "t"}, np.nan, 0, None),
        (b'{"value": 3, "t": "9999-12-31T23:59:59-14:00"}', {"time_path": "t", "time_unit": "iso"}, 3.0, 2, None),
        (b'{"value": 3, "t": "0001-01-01T00:00:00+14:00"}', {"time_path": "t", "time_unit": "iso"}, 3.0, 2, None),
        (b'{"value": 3, "t": "1800000000000"}', {"time_path": "t", "time_unit": "ms"}, 3.0, 2, NOW_NS),
        (b'{"value": 3, "t": -1}', {"time_path": "t"}, 3.0, 2, None),
        (b'{"value": 3, "t": [[[]]]}', {"time_path": "t"}, 3.0, 2, None),
        (b'{"value": 1e999}', {}, np.nan, 0, None),
        (b'{"value": "1e999"}', {}, np.nan, 0, None),
        (b'{"a": ' * 5000 + b"1" + b"}" * 5000, {}, np.nan, 0, None),
        (b"[" * 50_000 + b"]" * 50_000, {}, np.nan, 0, None),
        (b'{"value": "317.3988"}', {}, 317.3988, 2, None),
        (b'{"value": " -1.5e-3 "}', {}, -0.0015, 2, None),
        (b'"12.5"', {"format": "plain"}, 12.5, 2, None),
        (b"12,5", {"format": "plain"}, np.nan, 0, None),
        (b"12,5", {"format": "plain", "decimal": ","}, 12.5, 2, None),
        (b"1.234,5", {"format": "plain", "decimal": ","}, np.nan, 0, None),
        (b"1,234.5", {"format": "plain"}, np.nan, 0, None),
        (b"1_000", {"format": "plain"}, np.nan, 0, None),
        (b'{"value": "1_000"}', {}, np.nan, 0, None),
        (b"0x1F", {"format": "plain"}, np.nan, 0, None),
        ("١٢".encode(), {"format": "plain"}, np.nan, 0, None),
        (b"12.5 m3/h", {"format": "plain"}, np.nan, 0, None),
        (b'{"value": "ON"}', {}, np.nan, 0, None),
        (b'{"value": "ON"}', {"states": {"ON": 1, "OFF": 0}}, 1.0, 2, None),
        (b"OFF", {"format": "plain", "states": {"ON": 1, "OFF": 0}}, 0.0, 2, None),
        (b'{"value": "FAULT"}', {"states": {"ON": 1, "OFF": 0}}, np.nan, 0, None),
        (b'\xef\xbb\xbf{"value": 3.1}', {}, 3.1, 2, None),
        (b'{"32.7.0": 229.9, "1.7.0": 840}', {"value_path": '"1.7.0"'}, 840.0, 2, None),
        (b'{"32.7.0": 229.9, "1.7.0": 840}', {"value_path": "1.7.0"}, 840.0, 2, None),
        (b'{"d": {"particles_2.5um": 5}}', {"value_path": 'd."particles_2.5um"'}, 5.0, 2, None),
        (b'{"d": {"a": {"b": 5}}}', {"value_path": 'd."a.b"'}, np.nan, 0, None),
    ],
)
def test_payloads(payload: bytes, options: dict[str, str], value: float, quality: int, t_ns: int | None):
    (reading,), tally = read(payload, **options)
    np.testing.assert_equal((reading.value, reading.quality, reading.t_ns), (value, quality, t_ns))
    assert tally.noted["payload without a number"] == np.isnan(value)
    assert tally.noted["no usable time stamp"] == ("time_path" in options and t_ns is None)
    assert not tally.noted or "(TT101)" in tally.text()


KEPWARE = b"""{"timestamp": 1800000000900, "values": [
  {"id": "Channel1.Device1.PT101", "v": 3.1, "q": true, "t": 1800000000100},
  {"id": "Channel1.Device1.TT101", "v": 81.5, "q": true, "t": 1800000000200},
  {"id": "Channel1.Device1.TT101", "v": 82.5, "q": false, "t": 1800000000300}]}"""
IGNITION = b"""{"topic": {"namespace": "spBv1.0", "edgeNodeDescriptor": "G1/E1", "type": "DDATA"},
  "payload": {"timestamp": 1800000000900, "seq": 2, "metrics": [
  {"name": "Line 1/TT101", "timestamp": 1800000000200, "dataType": "Double", "value": 81.5},
  {"name": "Line 1/PT101", "timestamp": 1800000000100, "dataType": "Double", "value": 3.1,
   "properties": {"Quality": {"type": "Int32", "value": 0}}}]}}"""
SIEMENS = b"""{"seq": 4711, "vals": [
  {"id": "102", "qc": 0, "ts": "2027-01-15T08:00:00.100Z", "val": 3.1},
  {"id": "101", "qc": 3, "ts": "2027-01-15T08:00:00.200Z", "val": "81.5"}]}"""
METRIC = "payload.metrics[name=Line 1/{}]"


@pytest.mark.parametrize(
    ("payload", "options", "expected"),
    [
        (
            KEPWARE,
            {
                "value_path": "values[id=Channel1.Device1.TT101].v",
                "time_path": "values[id=Channel1.Device1.TT101].t",
                "quality_path": "values[id=Channel1.Device1.TT101].q",
                "time_unit": "ms",
            },
            [(81.5, 2, NOW_NS + 200_000_000), (82.5, 0, NOW_NS + 300_000_000)],
        ),
        (
            KEPWARE,
            {"value_path": 'values[id="Channel1.Device1.PT101"].v', "time_path": "timestamp", "time_unit": "ms"},
            [(3.1, 2, NOW_NS + 900_000_000)],
        ),
        (KEPWARE, {"value_path": "values[id=Channel1.Device1.LT101].v"}, []),
        *(
            (
                IGNITION,
                {
                    "value_path": f"{METRIC.format(tag)}.value",
                    "time_path": f"{METRIC.format(tag)}.timestamp",
                    "quality_path": f"{METRIC.format(tag)}.properties.Quality.value",
                    "quality_code": "opcda",
                    "quality_missing": "good",
                    "time_unit": "ms",
                },
                expected,
            )
            for tag, expected in (
                ("TT101", [(81.5, 2, NOW_NS + 200_000_000)]),
                ("PT101", [(3.1, 0, NOW_NS + 100_000_000)]),
            )
        ),
        *(
            (
                SIEMENS,
                {
                    "value_path": f"vals[id={tag}].val",
                    "time_path": f"vals[id={tag}].ts",
                    "quality_path": f"vals[id={tag}].qc",
                    "quality_code": "profibus",
                    "time_unit": "iso",
                },
                expected,
            )
            for tag, expected in ((101, [(81.5, 2, NOW_NS + 200_000_000)]), (102, [(3.1, 0, NOW_NS + 100_000_000)]))
        ),
        (b'{"values": {"id": "TT101", "v": 1}}', {"value_path": "values[id=TT101].v"}, [(np.nan, 0, None)]),
        (b'{"values": [{"id": "TT101"}]}', {"value_path": "values[id=TT101].v"}, [(np.nan, 0, None)]),
    ],
)
def test_lists_of_named_values_are_read_by_name_wherever_the_element_stands(payload: bytes, options, expected):
    """The payloads of Kepware's IoT Gateway, Cirrus Link's Cloud Injector (Ignition) and Siemens Industrial Edge."""
    readings, _ = read(payload, **options)
    np.testing.assert_equal([tuple(reading) for reading in readings], expected)
