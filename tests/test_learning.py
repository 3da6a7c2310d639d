"""Learning in place: recordings become a model, the model takes the seat of a running daemon, and may be taken back."""

import asyncio
import json
import os
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from mosquitto import Mosquitto, needs_broker
from test_prospect import running
from wire_examples import until as wait_until

from control.anomaly.calibration import Calibration
from fusion.checkpoint import load_checkpoint
from fusion.cli import main
from fusion.daemon.audit import AUDIT, Audit
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.learning import LOOK_EVERY_S, NICE, LearnConfig, Learner, learnable_hours, too_early
from fusion.daemon.memory import TickMemory
from fusion.daemon.resume import columns_of
from fusion.daemon.seat import Seat
from fusion.daemon.settings import DaemonConfig
from fusion.daemon.succession import Succession, first_checkpoint, first_model
from fusion.errors import ConfigError, PlantMismatch
from fusion.learning import _strange, held_back, normal_recordings, only_growing
from fusion.model_store import ModelStore
from fusion.plant_file import dump_plant
from fusion.recordings.recorder import Recorder, RecorderConfig
from fusion.recordings.recording import Event, Recording
from fusion.recordings.writer import relabel
from fusion.records import NS_PER_S, Energy, Origin
from fusion.targets import Target
from fusion.timeline.history import frames
from tests.small_plants import SMALL, small_values, write_recording

START_S = 1_700_000_000
HOUR_S = 3600


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a plant, five recordings of half an hour, and the first model learned from them in closed form."""
    folder = tmp_path_factory.mktemp("site")
    dump_plant(SMALL, folder / "plant.yaml")
    for i in range(5):
        values = small_values(i, 1800)
        write_recording(folder / "records" / f"{i}", SMALL, values, START_S + i * HOUR_S)
    assert learned(folder) == 0
    return folder


def learned(folder, *settings):
    places = ["--records", str(folder / "records"), "--models", str(folder / "models")]
    return main(["learn", *places, "--plant", str(folder / "plant.yaml"), "steps=0", "threads=1", *settings])


def test_the_first_model_is_used_and_its_hours_are_said(site):
    store = ModelStore(site / "models")
    assert store.names()[0] == "0001"
    first = store.history()[0]
    assert (first.model, first.by) == ("0001", "backtest")
    assert "h behind its limits" in first.reason
    assert json.loads((site / "models" / "0001" / "verdict.json").read_text())["taken"] is True


@pytest.mark.parametrize(("distances", "said"), [((0.8, 2.0, 5000.0), False), ((20.0, 2169.0, 8e5), True)])
def test_a_model_that_was_calibrated_on_another_plant_than_it_knows_is_said(distances, said):
    """Such as one of an hour whose setpoints moved in its last part only: its limits are beyond any fault."""
    energies = [Energy(name=str(i), origin=Origin.AHEAD, family="innovation") for i in range(len(distances))]
    limits = SimpleNamespace(energies=energies, median=np.array(distances))
    text = _strange(SimpleNamespace(typical=Calibration.typical.fget(limits)))
    assert ("it finds little" in text) is said
    assert bool(text) is said


def test_a_later_model_is_tried_on_what_neither_has_seen(site):
    before = len(ModelStore(site / "models").names())
    assert learned(site) == 0
    store = ModelStore(site / "models")
    verdict = json.loads((site / "models" / store.names()[-1] / "verdict.json").read_text())
    assert len(store.names()) == before + 1
    assert verdict["hours"] == pytest.approx(0.45, abs=0.03)
    assert verdict["raises"] is not None
    assert verdict["taken"] is (verdict["raises"] <= max(verdict["raises_in_use"], 1))


def test_models_are_listed_accepted_and_rolled_back(site, tmp_path, capsys):
    store, models = ModelStore(tmp_path), ["--models", str(tmp_path)]
    for one in ("0001", "0002"):
        shutil.copytree(site / "models" / "0001", tmp_path / one)
    one, two = store.names()
    assert main(["model", "accept", one, *models, "--by", "kim"]) == 0
    assert main(["model", "accept", two, *models, "--by", "kim"]) == 0
    assert store.current.name == two
    assert main(["model", "rollback", *models, "--by", "lee"]) == 0
    assert store.current.name == one
    capsys.readouterr()
    assert main(["model", "list", *models]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"* {one}  used since")
    assert "by lee  rolled back" in said[0]
    assert main(["model", "accept", "0099", *models]) == 2
    assert f"there is no model '0099'; expected one of: {one}, " in capsys.readouterr().err
    assert main(["model", "accept", *models]) == 2
    (store.folder / "current.json").write_text("{")
    assert main(["model", "list", *models]) == 2
    assert "choose with `fusion model accept`" in capsys.readouterr().err


def test_while_somebody_makes_a_model_the_daemon_says_so_and_learns_nothing_itself(tmp_path):
    store, learning = ModelStore(tmp_path / "models"), LearnConfig(models=str(tmp_path / "models"))
    config = DaemonConfig(plant="", record=RecorderConfig(folder=str(tmp_path)), learn=learning)
    seat, teacher = Seat(SMALL), Idle()
    succession = Succession(config, seat, teacher, AlarmDesk(), None, None)

    async def life():
        store.tell("commissioning: the plant's past is recorded")
        watching = asyncio.create_task(succession.watch())
        await until(lambda: seat.waiting)
        assert seat.flags == ("no model: commissioning: the plant's past is recorded",)
        store.tell("")
        await until(lambda: seat.waiting == "waiting for hours")
        watching.cancel()

    asyncio.run(life())


def test_only_what_is_normal_whole_and_of_this_plant_is_learned_from(tmp_path):
    values = small_values(0, 100)
    for name in ("good", "fault", "labelled", "torn", "foreign"):
        plant = replace(SMALL, name="other") if name == "foreign" else SMALL
        write_recording(tmp_path / name, plant, values)
    relabel(tmp_path / "fault", "fault", [])
    relabel(tmp_path / "labelled", "labelled", [])
    (tmp_path / "torn" / "process.parquet").write_bytes(b"half")
    found, left_out = normal_recordings(tmp_path, SMALL)
    assert [path.name for path in found] == ["good", "labelled"]
    assert left_out == "0.03 h are left out: name: other, not small in 1 of the recordings"


def test_what_is_kept_back_is_the_last_recording_that_is_not_mostly_marked(tmp_path):
    for number in range(5):
        start_s = START_S + number * HOUR_S
        write_recording(tmp_path / f"{number}", SMALL, small_values(number, 1800), start_s)
        from_s, until_s = {3: (300, 420), 4: (60, 1380)}.get(number, (0, -1))
        marks = [Event(name="m", onset_ns=(start_s + from_s) * NS_PER_S, end_ns=(start_s + until_s) * NS_PER_S)]
        relabel(tmp_path / f"{number}", "marked", marks if until_s > 0 else [])
    found, _ = normal_recordings(tmp_path, SMALL)
    assert [path.name for path in found] == ["0", "1", "2", "3", "4"]
    assert [path.name for path in held_back(found)] == ["3"]
    assert [path.name for path in held_back(found[4:] * 4)] == ["4"]  # better than nothing
    assert held_back(found[:3]) == []


def without_pressure(**changes):
    """The plant without PT1, and with its limits, prices, words and order changed."""
    kept = [replace(s, description=f"my {s.name}") for s in SMALL.signals if s.name != "PT1"]
    kept[-1] = replace(kept[-1], high=20.0)
    return replace(SMALL, signals=tuple(reversed(kept)), targets=(Target(signal="FT1", price=2.0),), **changes)


def test_recordings_of_a_plant_that_was_changed_since_are_learned_from(site, tmp_path):
    """Without a tag they hold all of it; with one more, those that hold it are used and the others are counted."""
    shutil.copytree(site, tmp_path, dirs_exist_ok=True)
    dump_plant(without_pressure(), tmp_path / "plant.yaml")
    assert learned(tmp_path) == 0
    store, names = ModelStore(tmp_path / "models"), ModelStore(site / "models").names()
    assert store.names() == [*names, f"{len(names) + 1:04d}"]
    assert store.history()[-1].reason.startswith("the first one that fits the plant as it is (signal PT1 is missing): ")
    made = load_checkpoint(store.current)
    assert [tag.name for tag in made.plant.tags] == ["FT1", "TT1"]
    assert made.plant.by_name["FT1.SP"].high == 20.0
    assert sum(made.meta["hours"].values()) > 1.5

    lost = write_recording(tmp_path / "records" / "9", without_pressure(), small_values(9, 1800), START_S + 9 * HOUR_S)
    dump_plant(SMALL, tmp_path / "plant.yaml")
    assert learned(tmp_path) == 0
    last = store.history()[-1]
    assert last.reason.endswith("0.50 h are left out: signal PT1 is missing in 1 of the recordings")
    assert [tag.name for tag in load_checkpoint(store.current).plant.tags] == ["TT1", "FT1", "PT1"]
    assert Recording(lost).plant.by_name.keys() == {"FT1.SP", "FT1", "TT1"}


def test_a_daemon_whose_plant_was_changed_learns_anew_and_says_why(site, tmp_path):
    learning = LearnConfig(models=str(site / "models"))
    config = DaemonConfig(plant="", record=RecorderConfig(folder=str(tmp_path)), learn=learning)
    place, checkpoint = first_checkpoint(config, SMALL)
    assert (place, checkpoint.plant.fingerprint) == (ModelStore(site / "models").current, SMALL.fingerprint)
    changed = without_pressure()
    assert first_checkpoint(config, changed) == (place, None)
    with pytest.raises(PlantMismatch, match="signal PT1 is missing"):
        first_checkpoint(replace(config, model=str(place), learn=LearnConfig()), changed)
    segments = [Recording(path) for path in sorted((site / "records").iterdir())]
    assert learnable_hours(segments, changed) == pytest.approx(2.5, abs=0.01)
    assert learnable_hours(segments, replace(SMALL, step_s=2.0)) == 0.0
    seat = Seat(changed)
    succession = Succession(config, seat, Idle(), AlarmDesk(), None, place)

    async def life():
        watching = asyncio.create_task(succession.watch())
        await until(lambda: seat.waiting)
        watching.cancel()

    asyncio.run(life())
    why = f"{place.name} is of the plant before it was changed: signal PT1 is missing"
    assert seat.flags == (f"no model: waiting for hours; {why}",)
    assert succession.trouble == ""


def test_tags_that_only_grew_are_named(tmp_path):
    values = small_values(0, 200)
    grown = values | {"PT1": np.arange(200) / 360}
    first, second = (write_recording(tmp_path / name, SMALL, grown) for name in "ab")
    assert only_growing([first, second], SMALL) == []  # it began anew
    later = write_recording(tmp_path / "c", SMALL, grown | {"PT1": 1 + np.arange(200) / 360})
    assert only_growing([first, later], SMALL) == ["PT1"]
    assert only_growing([first, later], without_pressure()) == []
    assert only_growing([write_recording(tmp_path / "d", SMALL, values)], SMALL) == []


def test_too_little_is_said_and_nothing_is_put_to_use(tmp_path, capsys):
    dump_plant(SMALL, tmp_path / "plant.yaml")
    write_recording(tmp_path / "records" / "0", SMALL, small_values(0, 200))
    assert learned(tmp_path) == 2
    assert "normal" in capsys.readouterr().err
    assert ModelStore(tmp_path / "models").current is None


class Process:
    """A process of learning and what it says, piece by piece; it ends with the last."""

    def __init__(self, returncode, *said):
        self.returncode, self.stderr, self._said = returncode, self, list(said)

    async def read(self, size):
        return self._said.pop(0) if self._said else b""

    async def wait(self):
        return self.returncode


def learner(folder, monkeypatch, process, started, clock=lambda: 0.0, **settings):
    async def start(*command, **_):
        started.append(command)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    recorder = Recorder(RecorderConfig(folder=str(folder)), SMALL)
    config = LearnConfig(models=str(folder / "models"), first_h=0.4, **({"every_h": 1.0} | settings))
    return Learner(config, folder / "plant.yaml", recorder, clock)


def knowing(folder, name, hours, ago_s=0.0):
    """A model of so many hours, written so long ago, as far as a learner looks at it."""
    place = folder / "models" / name
    place.mkdir(parents=True)
    (place / "model.json").write_text(
        json.dumps({"meta": {"hours": {"training": 0.6 * hours, "calibration": 0.4 * hours}}})
    )
    written_s = time.time() - ago_s
    os.utime(place / "model.json", (written_s, written_s))


def test_a_backbone_sees_for_every_model_that_is_learned(tmp_path, monkeypatch):
    started = []
    teacher = learner(tmp_path, monkeypatch, Process(0), started, backbone="efficientnet_lite0")
    write_recording(tmp_path / "20260101T000000Z", SMALL, small_values(0, 3700), START_S)
    knowing(tmp_path, "0001", 0.9, ago_s=3601.0)
    asyncio.run(teacher.turn(True))
    assert started[0][-2:] == ("seconds=600", "backbone=efficientnet_lite0")


def test_until_a_day_is_known_a_model_is_learned_whenever_twice_as_much_is_recorded(tmp_path, monkeypatch):
    started, now = [], [0.0]
    teacher = learner(tmp_path, monkeypatch, Process(0), started, lambda: now[0], every_h=4.0)
    knowing(tmp_path, "0001", 0.9, ago_s=1800.0)
    write_recording(tmp_path / "20260101T000000Z", SMALL, small_values(0, 3700), START_S)

    async def turn(later_s):
        now[0] += later_s
        assert await teacher.turn(True) == ""
        await asyncio.sleep(0)

    async def life():
        await turn(0.0)
        assert (
            teacher.learning
            == "the next model is learned in 3.5 h, or once 1.8 h of normal operation are recorded (1.0 now)"
        )
        write_recording(tmp_path / "20260101T010200Z", SMALL, small_values(1, 3700), START_S + 3720)
        await turn(LOOK_EVERY_S - 1)  # not looked at yet
        assert not started
        await turn(1)
        assert "steps=0" in started[0]
        knowing(tmp_path, "0002", 1.9)
        await turn(LOOK_EVERY_S)
        assert len(started) == 1  # twice as much is not there yet
        knowing(tmp_path, "0003", 2.1)
        await turn(LOOK_EVERY_S)
        assert teacher.learning == "the next model is learned in 4.0 h"

    asyncio.run(life())


def test_a_daily_model_is_due_by_the_last_one_whoever_ran_meanwhile_and_waits_for_something_to_learn(
    tmp_path, monkeypatch
):
    started, now = [], [0.0]
    teacher = learner(tmp_path, monkeypatch, Process(0), started, lambda: now[0])
    knowing(tmp_path, "0001", 4.0, ago_s=3700.0)

    async def life():
        await teacher.turn(True)
        assert teacher.learning == "the next model is learned once 2.0 h of normal operation are recorded (0.0 now)"
        write_recording(tmp_path / "20260101T000000Z", SMALL, small_values(0, 3700), START_S)
        now[0] = LOOK_EVERY_S
        await teacher.turn(True)
        assert not started
        write_recording(tmp_path / "20260101T010200Z", SMALL, small_values(1, 3700), START_S + 3720)
        now[0] = 2 * LOOK_EVERY_S
        await teacher.turn(True)
        assert "seconds=600" in started[0]

    asyncio.run(life())


def test_a_model_from_elsewhere_is_followed_by_one_that_is_learned(tmp_path, monkeypatch):
    started, now = [], [0.0]
    teacher = learner(tmp_path, monkeypatch, Process(0), started, lambda: now[0])
    write_recording(tmp_path / "20260101T000000Z", SMALL, small_values(0, 3700), START_S)

    async def life():
        await teacher.turn(True)
        assert teacher.learning == "the next model is learned in 1.0 h"
        teacher._began_ns -= 3601 * NS_PER_S
        now[0] = LOOK_EVERY_S
        await teacher.turn(True)
        assert "seconds=600" in started[0]

    asyncio.run(life())


def test_what_a_damaged_model_was_made_from_is_nothing(tmp_path):
    knowing(tmp_path, "0001", 5.0)
    (tmp_path / "models" / "0001" / "model.json").write_text("{")
    assert ModelStore(tmp_path / "models").last().hours == 0.0


def test_the_first_model_is_learned_when_there_is_enough(tmp_path, monkeypatch):
    started = []
    teacher = learner(tmp_path, monkeypatch, Process(0), started)

    async def life():
        assert await teacher.turn(False) == "0.00 of 1 h of normal operation recorded"
        write_recording(tmp_path / "20260101T000000Z", SMALL, small_values(0, 3700), START_S)
        await teacher.turn(False)
        assert len(started) == 1
        assert "steps=0" in started[0]
        assert started[0][:3] == ("nice", "-n", str(max(NICE - os.getpriority(os.PRIO_PROCESS, 0), 0)))
        assert teacher.learning == "a model is being learned"

    asyncio.run(life())


def test_how_far_a_model_is_that_is_being_learned_is_said(tmp_path, monkeypatch):
    pieces, over = [b"reading recordings: 10 %, 12 s\nnetw", b"orks: 40 %, 24 s\n"], asyncio.Event()

    async def read(size):
        if not pieces:
            await over.wait()
        return pieces.pop(0) if pieces else b""

    process = Process(0)
    process.read = read
    teacher = learner(tmp_path, monkeypatch, process, [])

    async def life():
        await teacher._start("seconds=1")
        await until(lambda: teacher.learning == "a model is being learned (networks: 40 %, 24 s)")
        over.set()
        await until(lambda: teacher.learning == "")

    asyncio.run(life())


def test_hours_too_few_for_a_model_are_said(tmp_path, monkeypatch, caplog):
    learner(tmp_path, monkeypatch, Process(0), [])
    assert "learn.first_h is 0.4, and a model of a plant with a step of 1 s needs 1 h at least" in caplog.text
    assert not too_early(LearnConfig(first_h=1.0), SMALL)


def test_a_failure_to_learn_is_said_and_tried_again_later(tmp_path, monkeypatch):
    started = []
    teacher = learner(tmp_path, monkeypatch, Process(2, b"a traceback\nfusion: too little\n"), started)
    write_recording(tmp_path / "20260101T000000Z", SMALL, small_values(0, 3700), START_S)

    async def life():
        await teacher.turn(False)
        await asyncio.sleep(0)
        assert teacher.trouble == "learning failed: fusion: too little"
        said = await teacher.turn(False)
        assert said.endswith("recorded; learning failed: fusion: too little")
        assert len(started) == 1

    asyncio.run(life())


async def until(true):
    for _ in range(3000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come")


class Idle:
    trouble = learning = ""

    async def turn(self, has_model):
        return "" if has_model else "waiting for hours"

    async def finish(self):
        pass


def test_a_model_takes_the_seat_between_two_ticks_and_knows_what_was_before(site, tmp_path):
    config = DaemonConfig(
        plant="", record=RecorderConfig(folder=str(tmp_path)), learn=LearnConfig(models=str(site / "models"))
    )
    seen = list(frames(Recording(site / "records" / "4")))
    memory = TickMemory(tmp_path / "ticks", columns_of(SMALL), 3600.0)
    seat, desk = Seat(SMALL), AlarmDesk()
    succession = Succession(config, seat, Idle(), desk, memory, None)

    async def direct(work, *given):
        return work(*given)

    async def life():
        watching = asyncio.create_task(succession.watch())
        outcomes = []
        for i, frame in enumerate(seen[:700]):
            outcome = seat.step(frame)
            memory.add(outcome.ticks)
            outcomes.append(outcome)
            if i == 400:
                await until(lambda: succession._ready)
            await succession.seat_successor(direct)
            await asyncio.sleep(0)
        watching.cancel()
        return outcomes

    outcomes = asyncio.run(life())
    memory.close()
    begun = next(i for i, o in enumerate(outcomes) if o.surprise is not None)
    assert begun <= 402  # of these 400 ticks the model was shown
    assert "no model: waiting for hours" in outcomes[50].flags
    assert not [flag for o in outcomes[begun:] for flag in o.flags if flag.startswith(("warming up", "no model"))]
    assert np.isfinite(outcomes[begun].surprise.peak)
    assert seat.model_id.startswith("small-")


def test_a_model_that_cannot_be_used_is_said_and_the_present_one_stays(site, tmp_path):
    store = ModelStore(tmp_path / "models")
    place = store.next_place()
    place.mkdir()
    (place / "model.json").write_text("{}")
    store.choose(place.name, "test")
    config = DaemonConfig(
        plant="", record=RecorderConfig(folder=str(tmp_path)), learn=LearnConfig(models=str(store.folder))
    )
    seat = Seat(SMALL)
    succession = Succession(config, seat, Idle(), AlarmDesk(), None, None)

    async def life():
        watching = asyncio.create_task(succession.watch())
        await until(lambda: succession.trouble)
        watching.cancel()

    asyncio.run(life())
    assert "0001 is not used: " in succession.trouble
    assert seat.engine is None


@needs_broker
def test_a_model_is_chosen_over_mqtt_and_one_that_cannot_be_used_is_refused(site, tmp_path):
    store = ModelStore(tmp_path / "models")
    shutil.copytree(site / "models" / "0001", store.folder / "0001")
    (store.folder / "0002").mkdir()
    (store.folder / "0002" / "model.json").write_text("{}")
    config = DaemonConfig(
        plant="", record=RecorderConfig(folder=str(tmp_path)), learn=LearnConfig(models=str(store.folder))
    )
    succession = Succession(config, Seat(SMALL), Idle(), AlarmDesk(), None, None)
    broker = Mosquitto(tmp_path)
    topic = "fusion/small/v1/model/order"
    try:
        succession._learner.learning = "the next model is learned in 1.0 h"
        with running(broker.port, audit=Audit(tmp_path / AUDIT), succession=succession) as (_, publisher):
            health = broker.read("fusion/+/v1/health", 2, "-F", "%p", timeout_s=10).communicate()[0]
            told = [json.loads(line)["learning"] for line in health.splitlines() if line.startswith("{")]
            assert told[-1] == "the next model is learned in 1.0 h"
            for name, by in (("0002", "lee"), ("0009", "lee"), ("0001", "kim")):
                broker.write(topic, json.dumps({"model": name, "by": by}))
            wait_until(lambda: store.current == store.folder / "0001", "the choice")
            assert publisher.dropped["model:refused"] == 2
            for nothing in ('{"model": "", "by": "kim"}', '{"model": "0001"}', "0001"):
                broker.write(topic, nothing)
            wait_until(lambda: publisher.dropped["model:not_understood"] == 3, "no choices")
        with running(broker.port) as (_, publisher):
            broker.write(topic, '{"model": "0001", "by": "kim"}')
            wait_until(lambda: publisher.dropped["model:refused"], "that none are kept")
    finally:
        broker.stop()
    assert [(c.model, c.by) for c in store.history()] == [("0001", "kim")]
    said = [json.loads(line) for line in (tmp_path / AUDIT).read_text().splitlines()]
    orders = [(s["what"], s["model"], s["by"]) for s in said if s["what"] in ("model", "refused")]
    assert orders == [("refused", "0002", "lee"), ("refused", "0009", "lee"), ("model", "0001", "kim")]
    reasons = [s["reason"] for s in said if s["what"] == "refused"]
    assert "written by another version" in reasons[0]
    assert "there is no model '0009'" in reasons[1]


def test_without_a_model_and_without_learning_there_is_nothing_to_run():
    with pytest.raises(ConfigError, match=r"model: missing; name a model folder, or let it be learned"):
        first_model(DaemonConfig(plant="p"))
    with pytest.raises(ConfigError, match=r"learn.models: learning needs record.folder"):
        DaemonConfig(plant="p", learn=LearnConfig(models="m"))
