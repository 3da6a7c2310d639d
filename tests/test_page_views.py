"""How a plant is laid out at a glance, what alarms ask of an operator, who did what, and what the other views say."""

import json
from dataclasses import replace

import msgspec
import pytest
from wire_examples import PLANT, T0, Story

from fusion.alarms import MarkKind
from fusion.daemon.audit import Audit
from fusion.dashboard import advice_view, alarm_record, events, layout, mimic, model_facts, model_view
from fusion.dashboard.acts import ActLog
from fusion.dashboard.archive import Archive
from fusion.dashboard.board import Board
from fusion.dashboard.events import DAY_NS, HOUR_NS, TEN_MIN_NS, Event
from fusion.dashboard.layout import CELLS, groups, shown
from fusion.dashboard.look import PLAIN
from fusion.plant import Modality, Plant, Role, Signal
from fusion.plant_file import load_plant
from fusion.publish.encoding import alarm_message, health_message, to_message
from fusion.publish.messages import EntryOut, GainOut, LedgerMessage, WhatifMessage, encode
from fusion.publish.orders import AnswerMessage
from fusion.recordings.marks import Journal, Mark
from fusion.recordings.recorder import MARKS
from fusion.records import NS_PER_S, AnomalyState, Verdict

STORY = Story(T0)
LIME = load_plant(__import__("pathlib").Path(__file__).parents[1] / "configs" / "plant" / "lime.yaml")


def told(*items, plant=PLANT, acts=None):
    board = Board(plant, 900.0, acts=acts)
    for item in items:
        message = item if hasattr(item, "__struct_fields__") else to_message(item, PLANT, "m-4711")
        board.take("fusion/lime/v1/any", encode(message))
    return board


# -- the overview


def titles(plant, **rest):
    return [group.title for group in groups(plant, **rest)]


def of(*names, **rest):
    return Plant(name="p", signals=tuple(Signal(name=name) for name in names), **rest)


def test_every_signal_stands_once_in_the_direction_of_the_flow():
    found = groups(LIME)
    assert sorted(s.name for group in found for s in group.signals) == sorted(LIME.by_name)
    assert [group.title for group in found] == ["silo", "feeder and belt", "slaker", "pump", "storage tank"]
    assert found[0].flows


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (of("line1/pump/flow", "line1/pump/speed", "line2/pump/flow"), ["line1/pump", "line2/pump"]),
        (of("HX7.dP", "HX7.T.PV", "HX8.dP", "HX8.T.SP"), ["HX7", "HX8"]),
        (of("TT101", "FT102", "LT201"), ["tags 1xx", "tags 2xx"]),
        (of("TT1", "TT2", "FT1", "PT3"), ["temperature", "flow", "pressure"]),
        (of("oil", "water"), ["signals"]),
        (of("TT201", "TT101", edges=(("TT101", "TT201"),)), ["tags 1xx", "tags 2xx"]),
        (of("TT201", "TT101", edges=(("TT101", "TT201"), ("TT201", "TT101"))), ["tags 2xx", "tags 1xx"]),
    ],
)
def test_a_plant_that_says_nothing_of_equipment_is_laid_out_by_its_names(plant, expected):
    assert titles(plant) == expected


def test_a_path_that_all_names_have_is_left_out_and_that_of_a_group_stands_above_it():
    cement = of(*(f"窑1.{name}" for name in ("TT101", "TT101.SP", "FT102", "PT201")))
    assert titles(cement) == ["tags 1xx", "tags 2xx"]
    assert layout.shared_path(cement) == "窑1."
    assert layout.shared_path(of("a.x", "a.y")) == layout.shared_path(of("TT1", "TT2", "TT3")) == ""
    assert layout.shared_path(of("a/p.PV", "a/p.SP", "a/p.OP")) == "a/"
    (first, _) = groups(cement)
    assert [mimic.label(first, s.name, "窑1.") for s in first.signals] == ["TT101", "TT101.SP", "FT102"]
    (pump, _) = groups(of("line1/pump/flow", "line1/pump/speed", "line2/pump/flow"))
    assert [mimic.label(pump, s.name, "") for s in pump.signals] == ["flow", "speed"]


def test_of_a_large_group_what_matters_is_shown_and_the_rest_counted():
    signals = (*(Signal(name=f"TT1{i:02}") for i in range(40)), Signal(name="TT199", role=Role.CONTROLLED))
    (group,) = groups(Plant(name="p", signals=signals))
    here = [s.name for s in shown(group, ["TT137"])]
    assert len(here) == CELLS
    assert {"TT137", "TT199"} <= set(here)


def test_a_cell_is_grey_until_something_is_wrong():
    board = told(STORY.frame(10))
    calm = mimic.cells(board)
    assert calm["TT101"][0] == "{} / {}".format(*(f"{board.value(n):.4g}" for n in ("TT101", "TIC101.SP")))
    assert "TIC101.SP" not in calm
    assert {calm[name][2] for name in ("TT101", "IT103", "LT201")} == {""}
    frame = to_message(STORY.frame(11), PLANT, "m")
    values = {**frame.values, "TT101": 95.0}
    values.pop("FT102")
    board.take("fusion/lime/v1/frame", encode(msgspec.structs.replace(frame, values=values)))
    board.take("fusion/lime/v1/anomaly", encode(to_message(STORY.anomaly(11), PLANT, "m")))
    now = mimic.cells(board)
    assert now["IT103"][2] == "blamed"
    assert now["FT102"][:1] + now["FT102"][2:] == ("-", "absent")
    assert now["TT101"][2] == "blamed"
    assert mimic.cells(told(STORY.anomaly(1)))["IT103"][2] == "blamed"
    board.take("fusion/lime/v1/anomaly", encode(to_message(STORY.anomaly(12, AnomalyState.CLEARED), PLANT, "m")))
    assert mimic.cells(board)["TT101"][2] == "beyond"


def test_advice_is_one_sentence_and_sick_sources_are_named():
    board = told(STORY.health(10), STORY.advice(10))
    assert "silo_lidar stale" in mimic.below(board)
    assert "4 of 5 live" in mimic.below(board)
    assert "set TIC101.SP from 83 to 81.4 °C; LIC201.SP from 0.6 to 0.52; saves about 3.1" in mimic.below(board)
    assert "No advice: an anomaly is open" in mimic.below(told(STORY.advice(10, Verdict.HOLD)))


# -- alarms as a whole


def event(name, t_ns, lasted_ns=60 * NS_PER_S, signals=("TT101",)):
    return Event(name, t_ns, None if lasted_ns is None else t_ns + lasted_ns, "process", signals)


def test_the_load_is_counted_in_ten_minutes_and_a_day():
    now_ns = T0 + 10 * DAY_NS
    found = [event(str(i), now_ns - i * NS_PER_S * 30) for i in range(12)] + [event("old", now_ns - 2 * DAY_NS)]
    load = events.load(found, 0, now_ns)
    assert (load.lately, load.peak, load.day, load.hours) == (12, 12, 12, 24.0)
    assert load.average == pytest.approx(12 / 144)
    assert load.verdict == "very likely acceptable"
    busy = events.load(found, now_ns - 4 * TEN_MIN_NS, now_ns)
    assert busy.average == 3.0
    assert busy.verdict == "likely over-demanding"
    assert events.load([], 0, now_ns).day == 0
    late = events.load(found, now_ns - HOUR_NS // 60, now_ns)  # heard a minute ago, of alarms that stood before
    assert (late.lately, late.day, late.average) == (12, 12, 3.0)
    assert "known of 1 min 00 s of it" in alarm_record.load_table(late, {})
    assert "flood" in alarm_record.load_table(load, {"kim": 3})
    assert "kim 3" in alarm_record.load_table(load, {"kim": 3})


def test_what_chatters_and_what_is_stale_is_named():
    now_ns = T0 + DAY_NS
    often = [event(str(i), now_ns - HOUR_NS // 3 * i, signals=("IT103", "TT101")) for i in range(1, 4)]
    seldom = [event(f"s{i}", now_ns - 3 * HOUR_NS * i, signals=("LT101",)) for i in range(1, 6)]
    assert events.chattering([*often, *seldom], now_ns) == {"IT103": 3}
    long = event("long", now_ns - 30 * HOUR_NS, None, ("PT1",))
    assert events.stale([*often, long], now_ns) == [long]
    said = alarm_record.trouble([*often, long], now_ns, PLAIN)
    assert "chatters" in said
    assert "30 h 00 min" in said


def test_what_was_like_it_before_comes_with_what_people_said_of_it(tmp_path):
    journal = Journal(tmp_path / MARKS)
    alarm = {"kind": MarkKind.ALARM, "verdict": "process", "signals": ("IT103", "TT101")}
    journal.add(Mark(name="lime-1", onset_ns=T0, end_ns=T0 + HOUR_NS, **alarm))
    journal.add(Mark(name="lime-2", onset_ns=T0 + DAY_NS, **(alarm | {"signals": ("LT201",)})))
    journal.add(Mark(name="agitator jam", kind=MarkKind.FAULT, onset_ns=T0 + 1, end_ns=T0 + 2, by="kim"))
    archive = Archive(tmp_path, PLANT)
    board = told(replace(STORY.anomaly(100), t_onset_ns=T0 + 2 * DAY_NS))
    found = events.known(board, archive)
    assert [e.id for e in found] == ["a-17", "lime-2", "lime-1"]
    assert [e.id for e in events.similar(found[0], found)] == ["lime-1"]
    row = alarm_record.event_row(found[0], found, archive, board.now_ns, PLAIN)
    assert row[1] == "IT103, TT101, microphone: process, stands"
    assert row[3].endswith("fault: agitator jam (kim)")
    assert events.said_of(found[1], archive, board.now_ns) == ""


# -- who did what


def test_acts_come_from_the_audit_also_those_of_before(tmp_path):
    audit = Audit(tmp_path / "audit.jsonl", lambda: T0)
    audit.note("started", model="m1")
    audit.note("order", id="lime-1", order="shelve", by="kim", for_s=1800.0)
    log = ActLog(tmp_path / "audit.jsonl")
    log.read()
    assert [(a.what, a.by, a.id, a.text) for a in log.acts] == [
        ("started", "", "", "model m1"),
        ("order", "kim", "lime-1", "shelve"),
    ]
    audit.note("advice", id="r-1", moves={"TIC101.SP": 81.4})
    with (tmp_path / "audit.jsonl").open("ab") as stream:
        stream.write(b'{"time": "torn')
    log.read()
    log.read()
    assert [a.text for a in log.acts][2:] == ["moves TIC101.SP 81.4"]
    log.heard(["alarm", "order"], b'{"id": "x", "order": "acknowledge", "by": "eve"}', T0)
    assert len(log.acts) == 3
    assert events.by_person(log.acts, T0 + 1) == {"kim": 1}


def test_without_an_audit_the_page_knows_what_it_has_heard(tmp_path):
    board = told(alarm_message(STORY.alarm(5), PLANT, STORY.at(5)))
    order = {"id": "a-17", "order": "acknowledge", "by": "Ana", "for_s": 0.0}
    board.take("fusion/lime/v1/alarm/order", json.dumps(order).encode())
    board.take("fusion/lime/v1/alarm/order", b"{")
    board.take("fusion/lime/v1/whatif/request", b"{}")
    assert [(a.what, a.by, a.text) for a in board.acts.acts] == [
        ("alarm", "", "process: raised"),
        ("order", "Ana", "acknowledge"),
    ]
    assert board.rejected == 0
    said = alarm_record.acts_table(board, PLAIN)
    assert "only what this page has heard" in said
    assert "acknowledge" in said
    assert "process: raised" in said
    nowhere = ActLog(tmp_path / "nothing.jsonl")
    nowhere.read()
    assert not nowhere.acts


# -- advice and model


def entry(name, **rest):
    known = {
        "t_ns": T0, "valid_until_ns": T0, "mode": "advise", "moves": [], "state": "applied", "by": "kim", "reason": "",
        "promised": GainOut(expected=3.0, low=1.0, high=5.0), "t_answer_ns": None, "t_applied_ns": None,
        "delivered": 2.5, "within": 0.9, "note": "",
    }  # fmt: skip
    return EntryOut(id=name, **(known | rest))


def test_what_was_promised_stands_beside_what_was_delivered():
    head = {"time": "", "t_ns": T0, "plant": "lime", "model_id": "m", "message_id": "x"}
    rejected = entry("r-2", state="rejected", reason="not now", delivered=None, within=None, note="it was not applied")
    board = told(LedgerMessage(entries=[entry("r-1"), rejected], **head))
    said = advice_view.ledger(board, PLAIN)
    assert "1 of 2 were applied and have come to their end: promised 3, delivered 2.5" in said
    assert "rejected by kim (not now)" in said
    assert "it was not applied" in said
    assert said.index("not now") < said.index("3 (1 .. 5)</td><td class=num>2.5")
    assert "no advice has been given yet" in advice_view.ledger(told(), PLAIN)
    board = told(LedgerMessage(entries=[], manual={"TIC101.SP": 0.25, "LIC101.SP": 0.0}, **head))
    assert "in manual, of the last day: TIC101.SP 25 %</div>" in advice_view.ledger(board, PLAIN)


def test_an_answer_to_what_if_is_a_table_or_a_reason():
    advice = to_message(STORY.advice(10), PLANT, "m")
    head = {"time": "", "t_ns": T0, "plant": "lime", "model_id": "m", "message_id": "x", "by": "", "moves": []}
    answer = WhatifMessage(
        id="q", verdict="answered", reason=None, text="", horizon_s=advice.horizon_s, if_moved=advice.if_applied,
        if_nothing=advice.if_nothing, gain=advice.gain, binding=["DT201 low"], support=0.4, stale=[], **head,
    )  # fmt: skip
    said = advice_view.answered(answer)
    for text in ("TT101", "saves 3.1 (0.4 .. 5.9) cost units an hour", "reaches DT201 low", "0.4 of the way"):
        assert text in said
    refused = msgspec.structs.replace(answer, verdict="refused", reason="outside_range", text="TIC101.SP: 74 to 90")
    assert "no answer: TIC101.SP: 74 to 90" in advice_view.answered(refused)


def test_the_model_says_what_its_hours_can_prove():
    board = told(health_message(STORY.health(10), PLANT))
    said = model_view.in_use(board)
    assert "26 h of normal operation; they cannot prove fewer than 2.77 false alarms a day (95 %)" in said
    assert model_facts.proof(None) == "nothing yet"
    assert "not told where models are kept" in model_view.listed_models(None, board, PLAIN)


def described(model_id, hours=6.0, **meta):
    """As much of a model's description as the page reads."""
    known = {
        "hours": {"training": hours, "held_out": 2.0, "calibration": hours},
        "licence": {
            "level": "advise",
            "signals": [
                {"signal": "TIC101.SP", "level": "advise", "reasons": []},
                {"signal": "LIC101.SP", "level": "shadow", "reasons": ["LIC101.SP: 8 moves", "bands too wide"]},
            ],
            "reasons": ["bands too wide"],
        },
        "card": {
            "horizon_s": [1.0, 64.0, 600.0],
            "tags": ["TT101", "LT101", "FT9"],
            "skill": [[0.9, 0.9, 0.9], [0.75, 0.75, None], [0.19, 0.19, 0.9]],
            "coverage_90": [[0.9] * 3, [0.9] * 3, [0.88, 0.88, 0.1]],
        },
        "calibration": {"hours": hours},
        "gauges": {"step": 0},
        "withheld": ["collapsed"],
    }
    signals = [{"name": n, "role": "controlled"} for n in ("TT101", "LT101")]
    signals += [{"name": "FT9"}, {"name": "camera", "modality": "video"}]
    return {"model_id": model_id, "plant": {"signals": signals}, "meta": known | meta}


def stored(folder, descriptions, used=()):
    """A store of models with these descriptions, of which some were put to use one after the other."""
    from fusion.model_store import ModelStore

    store = ModelStore(folder, lambda: T0)
    for name, said in descriptions.items():
        (folder / name).mkdir()
        (folder / name / "model.json").write_text(json.dumps(said))
    for name in used:
        store.choose(name, "kim")
    return store


def test_what_a_model_has_learned_is_said_in_plain_words(tmp_path):
    store = stored(tmp_path, {"0001": described("m-1"), "0002": described("m-2", gauges={"step": 400}), "0003": {}})
    facts = model_facts.facts_of(store.folder / "0001")
    said = model_facts.learned(facts)
    for text in ("6.0 h, tried on 2.0 h after them", "3 tags and 1 x camera", "in closed form", "bands of 90 % held"):
        assert text in said
    assert [round(facts.error(s), 3) for s in (64.0, 600.0)] == [0.5, 0.9]  # of the controlled tags
    assert facts.held == 0.88
    assert facts.rights() == [("TIC101.SP", "advise", ""), ("LIC101.SP", "shadow", "8 moves")]
    assert "missing for all: bands too wide" in said
    assert "with networks, 400 steps; doubtful: collapsed" in model_facts.learned(
        model_facts.facts_of(tmp_path / "0002")
    )
    for nothing in ("0003", "0004"):
        assert "nothing is known of what it has learned" in model_facts.learned(
            model_facts.facts_of(tmp_path / nothing)
        )


def test_a_description_that_is_written_anew_is_read_anew(tmp_path):
    store = stored(tmp_path, {"0001": described("m-1")})
    assert model_facts.facts_of(store.folder / "0001").model_id == "m-1"
    (tmp_path / "0001" / "model.json").write_text(json.dumps(described("another")))
    assert model_facts.facts_of(store.folder / "0001").model_id == "another"


def test_a_model_is_shown_beside_the_one_in_use(tmp_path):
    store = stored(tmp_path, {"0001": described("m-1", 30.0), "0002": described("m-2", 6.0)})
    old, new = (model_facts.facts_of(store.folder / name) for name in ("0001", "0002"))
    trial = model_facts.Trial(taken=False, reason="", hours=2.0, raises=3, raises_in_use=1)
    said = model_facts.compared(("0002", new, trial), ("0001", old))
    assert "In 2 h that neither had seen, 0002 raised 3 false alarms and the one then in use 1: more often" in said
    assert "<td>12</td><td>2.4</td>" in said  # false alarms a day that cannot be excluded
    assert "was not tried" in model_facts.compared(("0002", new, None), ("0001", old))
    assert "cannot be compared" in model_facts.compared(("0002", None, None), ("0001", old))


def test_the_model_in_use_is_the_one_that_the_daemon_runs_on_not_the_one_that_was_chosen(tmp_path):
    store = stored(tmp_path, {"0001": described("m-4711"), "0002": described("m-5")}, used=("0001", "0002"))
    board = told(health_message(STORY.health(10), PLANT))
    assert model_view.running(store, board) == "0001"
    said = model_view.listed_models(store, board, PLAIN)
    assert "0001 (in use)" in said
    assert "0002 (chosen, not in use yet)" in said
    assert model_view.previous(store) == "0001"
    assert model_view.others(store) == ["0001"]
    assert model_view.untried(store, ["0001"]) is None
    (tmp_path / "0003").mkdir()
    (tmp_path / "0003" / "model.json").write_text("{}")
    assert model_view.untried(store, model_view.others(store)) == "0003"


def test_learning_goes_on_while_a_model_is_in_use_and_drift_is_said():
    flags = ("knows little: its limits were set on times unlike those it was trained on", "relieved:audio")
    health = STORY.health(10, learning="a model is being learned (networks: 40 %, 24 s)", flags=flags)
    said = model_view.in_use(told(health_message(health, PLANT)))
    assert "a model is being learned (networks: 40 %, 24 s)" in said
    assert "the model can tell little" in said
    assert "sound is judged by a level that was accepted as normal" in said


def test_models_are_listed_with_their_trial_and_what_to_type(tmp_path):
    store = stored(tmp_path, {"0001": {}, "0002": {}}, used=("0001",))
    (tmp_path / "0002" / "verdict.json").write_text('{"taken": false, "reason": "3 false raises <b>"}')
    (tmp_path / "0002" / "report.html").write_text("<p>")
    said = model_view.listed_models(store, told(), PLAIN)
    assert said.index("0002") < said.index("0001 (in use)")
    assert "not taken: 3 false raises &lt;b&gt;" in said
    assert "by kim" in said
    assert '"/model/0002/report"' in said
    assert "/model/0001/report" not in said
    assert f"fusion model accept NAME --models {tmp_path}" in said
    (tmp_path / "current.json").write_text("{")
    assert "damaged" in model_view.listed_models(store, told(), PLAIN)


def test_media_of_a_frame_are_live_or_silent():
    board = told(STORY.frame(1))
    assert mimic.cells(board)["camera"] == ("silent", None, "absent")
    frame = to_message(STORY.frame(2), PLANT, "m")
    board.take("fusion/lime/v1/frame", encode(msgspec.structs.replace(frame, coverage={"camera": 0.9})))
    assert mimic.cells(board)["camera"] == ("live", None, "")
    assert PLANT.by_name["camera"].modality is Modality.VIDEO


def test_an_answer_carries_who_said_it():
    said = msgspec.json.decode(
        msgspec.json.encode(AnswerMessage(id="r", answer="rejected", reason="not now", by="kim"))
    )
    assert said == {"id": "r", "answer": "rejected", "reason": "not now", "by": "kim"}
