"""What the page says of an event, against the names that the models give to what they find."""

import re
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec import structs
from wire_examples import PLANT, Story

from fusion.dashboard import explain, places, words
from fusion.dashboard.board import Board
from fusion.dashboard.look import look_of
from fusion.plant import Balance, Modality
from fusion.publish.encoding import anomaly_message, to_message
from fusion.publish.messages import BlameOut, EnergyFactor, encode
from fusion.records import FAMILIES, NS_PER_S, AnomalyKind
from models.features import audio, video
from models.features.stem import stem_of
from models.monitors import balance, crossmodal, innovation, relations, two_ticks
from models.monitors.places import energies_of
from models.networks.latent_energies import latent_energies

STORY = Story(1_800_000_000 * NS_PER_S)


def told(*items, plant=PLANT):
    board = Board(plant, 900.0, lambda: 0.0)
    for item in items:
        message = item if hasattr(item, "__struct_fields__") else to_message(item, PLANT, "m-4711")
        board.take("fusion/lime/v1/any", encode(message))
    return board


def shown(anomaly):
    return anomaly_message(anomaly, PLANT)


def real_energies():
    """The names that the models make, by family; those of the networks as `latent_energies` does."""
    media = ("camera", "microphone", "silo_lidar")
    names = [*innovation.HORIZON, *two_ticks.SHRINKAGES]
    names += [f"{family}.0.02" for family in ("state", "discarded", "unexplained", "redundancy", "joint")]
    families = dict(zip(media, ("cell", "band", "spot"), strict=True))
    local = (*energies_of(families, PLANT), *energies_of({"camera": "perception"}, PLANT))
    names += [e.name for e in (*crossmodal._energies(media, PLANT), *local, *relations._energies())]
    names += [balance.energy_name(Balance(name="tank", flows={}), 120.0), "health.process", "health.camera"]
    names += [
        "replay.process",
        "resolution.process",
        "noise.process",
        "accumulation",
        "conditional.process",
        "conditional.camera",
    ]
    perception = SimpleNamespace(media=[PLANT.by_name[name] for name in media])
    return [*names, *(e.name for e in latent_energies(perception))]


def test_every_check_has_words_and_no_inside_name():
    assert set(words.FAMILY_TEXTS) == set(FAMILIES)
    found = {}
    for name in real_energies():
        check = words.check_of(name)
        assert name not in check.text()
        assert not re.search(r"\d\.\d|shift|tight|loose|\bprocess\b", check.text())
        found.setdefault(check.family, name)
    assert set(found) == set(FAMILIES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cross.camera.0.1", "camera and the other senses contradict each other"),
        ("cross.process.shift", "the tags and the other senses contradict each other"),
        ("band.microphone.0.02", "one pitch in microphone does not fit the rest of it"),
        ("cell.camera.0.1", "one place in camera does not fit the rest of it"),
        ("feature.north cam.2.0.02", "a detail of north cam.2 contradicts the other senses"),
        ("balance.tank.120s", "the balance of tank does not close over 2 min"),
        ("balance.tank.90s", "the balance of tank does not close over 90 s"),
        ("health.process", "a tag looks frozen or dead"),
        ("net.innovation.8", "the senses together did not go where they were forecast to go"),
        ("innovation.8", "the tags did not go where they were forecast to go"),
        ("what.is.this", "a check that this page does not know"),
        ("", "a check that this page does not know"),
    ],
)
def test_checks_are_said_in_words(name, text):
    assert words.check_of(name).text().startswith(text)


def test_a_revision_is_said_in_words():
    said = "process at camera -> sensor at IT103: cross.camera.0.1 rose to 5.2 times its limit"
    assert words.revision_text(said) == (
        "first the process at camera, then an instrument at IT103, because camera and the other senses contradict each "
        "other (5.2 times the limit)"
    )
    assert words.revision_text("it stood when judging began") == "it stood when judging began"


def stems():
    return [(name, stem_of(PLANT.by_name[name])) for name in ("camera", "microphone", "silo_lidar")]


@pytest.mark.parametrize(("signal", "stem"), stems())
def test_all_that_can_stand_out_of_a_medium_has_words(signal, stem):
    kind = PLANT.by_name[signal].modality
    for name in stem.names:
        where = name.replace("_", " ")
        found = places.place(kind, where, 16_000.0)
        assert found.text
        assert found.text != where or where in ("sharpness", "roughness", "volume")
        for low, high in filter(None, (found.rows, found.columns)):
            assert 0 <= low < high <= 1
        assert found.hz is None or 0 <= found.hz[0] < found.hz[1] < 8001


def test_places_agree_with_what_the_features_are_made_of():
    assert places.place(Modality.VIDEO, "row change 4").rows == (4 / video.PROFILE_BINS, 5 / video.PROFILE_BINS)
    assert places.place(Modality.VIDEO, "column brightness 0").columns == (0, 1 / video.PROFILE_BINS)
    weights = audio._mel_matrix(16_000, audio.PATCH_BANDS)
    hz = np.fft.rfftfreq(audio.WINDOW, 1 / 16_000)
    for pair in (10, 31):
        heard = hz[weights[2 * pair : 2 * pair + 2].sum(0) > 0]
        low, high = places.place(Modality.AUDIO, f"mel mean {pair}", 16_000.0).hz
        assert low <= heard.min() < heard.max() <= high
    assert places.place(Modality.AUDIO, "mel std 3").text == "unsteadiness in band 4 of 32"
    assert places.place(None, "row change 4").text == "row change 4"


@pytest.mark.parametrize(
    ("kind", "first", "energy", "text"),
    [
        (AnomalyKind.SENSOR, "IT103", "relation.0.1", "Check the instrument IT103: compare it with a second reading"),
        (AnomalyKind.SENSOR, "camera", "health.camera", "Check camera itself: lens, light, aim and cable"),
        (AnomalyKind.PROCESS, "LT201", "balance.tank.120s", "unmeasured flow around LT201 tank level and FT102"),
        (AnomalyKind.PROCESS, "silo_lidar", "cross.silo_lidar.0.1", "Look at what silo_lidar shows"),
        (AnomalyKind.UNKNOWN, "IT103", "joint.0.1", "Find out which is right. Look on the plant at IT103"),
    ],
)
def test_what_to_do_next_follows_from_kind_and_blame(kind, first, energy, text):
    law = Balance(name="tank", level="LT201", flows={"FT102": 1.0})
    board = told(STORY.health(9), plant=replace(PLANT, balances=(law,)))
    unit = "spreads" if first in ("camera", "silo_lidar") else "A"
    blame = BlameOut(signal=first, residual=3.0, unit=unit, share=1.0)
    said = structs.replace(
        shown(STORY.anomaly(10)),
        kind=kind,
        top_signals=[blame],
        energies=[EnergyFactor(name=energy, factor=2.0)],
    )
    assert text in explain.action(board, said)


@pytest.mark.parametrize(
    ("kind", "first", "energy", "text"),
    [
        (AnomalyKind.SENSOR, "camera", "health.camera", "camera looks frozen or dead"),
        (AnomalyKind.SENSOR, "IT103", "health.process", "IT103 agitator current looks frozen or dead"),
        (
            AnomalyKind.PROCESS,
            "FT102",
            "balance.tank.120s",
            "The balance of tank does not close over 2 min: something is lost, added or measured wrongly; "
            "FT102 slurry flow reads 5 A, expected 2 A",
        ),
        (AnomalyKind.PROCESS, "IT103", "relation.0.1", "IT103 agitator current reads 5 A, expected 2 A"),
        (
            AnomalyKind.PROCESS,
            "silo_lidar",
            "cross.silo_lidar.0.1",
            "silo_lidar: height in ring 3 of 8 is 3 normal spreads off; IT101 feeder current reads 5 A, expected 2 A",
        ),
    ],
)
def test_the_sentence_names_what_matters_first(kind, first, energy, text):
    board = told(STORY.health(9))
    tag = BlameOut(signal="IT101", residual=3.0, unit="A", share=0.4, expected=2.0, seen=5.0)
    blame = structs.replace(tag, signal=first)
    if first in ("camera", "silo_lidar"):
        blame = BlameOut(signal=first, residual=3.0, unit="spreads", share=0.6, where="ring 2")
    said = structs.replace(
        shown(STORY.anomaly(10)), kind=kind, top_signals=[blame, tag], energies=[EnergyFactor(name=energy, factor=2.0)]
    )
    assert explain.evidence(board, said, kind) == text
    bare = structs.replace(said, top_signals=[], energies=[])
    assert explain.evidence(board, bare, AnomalyKind.PROCESS) == "Process departs from normal"


def test_senses_that_see_nothing_are_named():
    board = told(STORY.health(9), STORY.energy(9))
    said = structs.replace(shown(STORY.anomaly(10)), by_modality={"video": 1.0, "process": 0.0})
    assert explain.senses(board, said) == "camera 100 %; nothing unusual in tags, sound and LiDAR"


@pytest.mark.parametrize(
    ("code", "text"),
    [("1", ""), ("Cel", "°C"), ("kg/m3", "kg/m³"), ("um", "µm"), ("/min", "1/min"), ("{rev}/min", "rev/min")],
)
def test_units_are_written_as_on_the_plant(code, text):
    assert words.unit_text(code) == text


def test_times_are_those_of_whoever_looks():
    summer = 1_782_910_800 * NS_PER_S  # 2026-07-01 13:00 UTC
    berlin = look_of({"zone": "Europe/Berlin", "dark": True, "width": 390})
    assert words.time_text(summer, berlin.zone) == "15:00:00"
    assert words.clock_text(summer, berlin.zone) == "2026-07-01 15:00:00 CEST"
    assert words.when_text(summer - 20 * 3600 * NS_PER_S, summer, berlin.zone) == "2026-06-30 19:00:00"
    assert (berlin.dark, berlin.narrow) == (True, True)
    for bad in ({}, {"zone": "Mars/Base"}, {"zone": "../../etc/passwd"}, {"zone": 7}):
        assert look_of(bad).zone.utcoffset(None) == timedelta(0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8.52e-05, "0.0000852"),
        (-0.0006994, "-0.000699"),
        (3e-12, "3e-12"),
        (0.0, "0"),
        (12.345, "12.3"),
        (999.9, "1000"),
    ],
)
def test_small_figures_are_written_out(value, text):
    assert words.figure(value) == text
    assert words.signed(8.52e-05) == "+0.0000852"
    assert words.signed(123456.0) == "+123000"
