"""A site begun, filled and examined: against servers as other people build them."""

import asyncio
import threading
import time

import pytest
from asyncua import ua
from asyncua.common.structures104 import new_enum
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID

from connectors.mqtt.config import MqttConfig
from connectors.settings import redacted
from fusion.cli import main
from fusion.daemon.settings import load_daemon_config
from fusion.plant import Role
from fusion.plant_file import load_plant
from fusion.site import opcua
from fusion.site.found import FoundTag, Kind
from fusion.site.loops import judge
from fusion.site.media import name_of as media_name
from fusion.site.naming import name_tags
from fusion.site.proposal import counts, propose
from fusion.site.units import from_code, from_text, from_words
from tests.contract.peers import OpcUaPeer, free_port
from tests.foreign_server import TAGS, Background, ForeignServer, Tag, discover
from tests.mosquitto import PASSWORD, Mosquitto, needs_broker, with_passwords


@pytest.fixture(scope="module")
def foreign():
    with Background(ForeignServer()) as server:
        yield server


@pytest.fixture(scope="module")
def proposed(foreign, tmp_path_factory):
    site = tmp_path_factory.mktemp("Works Nord")
    assert discover(site, foreign.server.url) == 0
    return site


def by_path(site):
    """The proposed signals by the path of the foreign tag they are taken from."""
    plant, config = load_plant(site / "plant.yaml"), load_daemon_config(site / "daemon.yaml")
    return plant, {address: plant.by_name[name] for name, address in config.connectors["plc"].nodes.items()}


def found(site, server):
    _, signals = by_path(site)
    return {
        tag: signals[f"nsu={ForeignServer.URI};i={server.nodes[tag.path].nodeid.Identifier}"] for tag in server.tags
    }


def unsure(site, name):
    """What the plant file says is unsure about a signal."""
    lines = (site / "plant.yaml").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if f"- {{name: {name}," in line)
    start = at
    while "# unsure:" in lines[start - 1]:
        start -= 1
    return [line.partition("# unsure: ")[2] for line in lines[start:at]]


def test_units_and_roles_of_a_foreign_server_are_right_or_marked(proposed, foreign):
    made = found(proposed, foreign.server)
    assert len(made) == len(TAGS) >= 50
    wrong = {tag.path: s for tag, s in made.items() if (tag.unit, tag.role) != (s.unit, s.role.value)}
    assert len(wrong) <= 0.1 * len(TAGS), wrong
    assert [path for path, signal in wrong.items() if not unsure(proposed, signal.name)] == []


def test_limits_modes_machines_and_loops_are_proposed_with_their_reason(proposed, foreign):
    plant, _ = by_path(proposed)
    made = {tag.path: (tag, signal) for tag, signal in found(proposed, foreign.server).items()}
    for tag, signal in made.values():
        if tag.range:
            assert (signal.low, signal.high) == tag.range
        if tag.auto:
            above = tag.path.rpartition("/")[0]
            assert signal.auto_tag == made[f"{above}/{tag.auto}"][1].name
    assert {made[f"Line1/{name}"][1].machine for name in ("IT-108", "ST-109", "XV-111")} == {True}
    assert ("TIC-101.SP", "TIC-101.PV", 1) not in [(g.manipulated, g.controlled, g.sign) for g in plant.gains]
    assert ("Line1.TIC-101.SP", "Line1.TIC-101.PV", 1) in [(g.manipulated, g.controlled, g.sign) for g in plant.gains]
    text = (proposed / "plant.yaml").read_text()
    assert "# LIC201.SP is its setpoint: same letter and number (ISA-5.1)" in text
    assert unsure(proposed, "FIC-119.SP") == ["written by another controller? manipulated, if an operator moves it"]


def test_names_are_unique_ascii_and_keep_what_the_source_calls_them(proposed, foreign):
    plant, _ = by_path(proposed)
    assert all(name.isascii() and " " not in name for name in plant.by_name)
    assert {"Line1.PT-103", "Line2.PT-103", "PT-103"} & set(plant.by_name) == {"Line1.PT-103", "Line2.PT-103"}
    made = {tag.path: signal for tag, signal in found(proposed, foreign.server).items()}
    assert made["Реактор/Температура/Уставка"].name == "Temperatura.Ustavka"
    assert "Реактор.Температура.Уставка" in made["Реактор/Температура/Уставка"].description


def test_what_did_not_move_is_marked(foreign, tmp_path):
    async def still():
        await foreign.server.add(Tag("Store/TT-900", "Cel", still=True, range=(0, 50)))

    foreign.run(still())
    assert discover(tmp_path, foreign.server.url, options=("--insecure", "--only", "Store/*"), seconds=0.5) == 0
    assert unsure(tmp_path, "TT-900") == ["did not change in 0.5 s: a constant, or frozen?"]
    assert len(load_plant(tmp_path / "plant.yaml").signals) == 1


def test_what_a_person_wrote_stays_and_what_is_new_is_added(foreign, tmp_path, capsys):
    only = ("--insecure", "--only", "*TIC-101*")
    assert discover(tmp_path, foreign.server.url, options=only, seconds=0.5) == 0
    for name in ("plant.yaml", "daemon.yaml"):
        file = tmp_path / name
        text = file.read_text().replace("Line1.TIC-101.PV", "Kiln").replace("# A manipulated", "# OURS. A manipulated")
        file.write_text(text)
    before = {name: (tmp_path / name).read_text().splitlines() for name in ("plant.yaml", "daemon.yaml")}
    assert discover(tmp_path, foreign.server.url, options=only, seconds=0.5) == 0
    assert "7 signals are in" in capsys.readouterr().out
    assert {name: (tmp_path / name).read_text().splitlines() for name in before} == before
    assert discover(tmp_path, foreign.server.url, options=("--insecure", "--only", "*FIC-102*"), seconds=0.5) == 0
    for name, lines in before.items():
        now = (tmp_path / name).read_text().splitlines()
        rest = iter(now)
        assert all(line in rest for line in lines)  # in their order
    plant, config = load_plant(tmp_path / "plant.yaml"), load_daemon_config(tmp_path / "daemon.yaml")
    assert "Kiln" in plant.by_name
    assert len(plant.signals) == 11
    assert set(config.connectors["plc"].nodes) == set(plant.by_name)


def test_a_file_that_cannot_be_added_to_is_left_and_a_proposal_stands_beside_it(foreign, tmp_path):
    main(["init", str(tmp_path)])
    text = (tmp_path / "plant.yaml").read_text().replace("signals: []", "signals: [{name: Mine, unit: Cel}]")
    (tmp_path / "plant.yaml").write_text(text)
    assert discover(tmp_path, foreign.server.url, options=("--insecure", "--only", "*FIC-102*"), seconds=0.5) == 0
    assert (tmp_path / "plant.yaml").read_text() == text
    assert [s.name for s in load_plant(tmp_path / "plant.proposed.yaml").signals][:2] == ["Mine", "FIC-102.PV"]


def test_a_browse_that_is_cut_off_says_so(foreign, tmp_path, capsys, monkeypatch):
    assert discover(tmp_path, foreign.server.url, options=("--insecure", "--most", "5"), seconds=0.5) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "variables the first 5 that can be used are taken; choose by --only, such as --only 'Line1/*'" in said
    assert "its folders are Line1, Line2, Kessel ..., or give --most" in said
    assert len(load_plant(tmp_path / "plant.yaml").signals) == 5


def test_a_pattern_that_names_a_folder_enters_no_other(foreign, tmp_path, capsys, monkeypatch):
    """So that a part of a huge server is found before the bound on nodes, wherever it stands."""
    monkeypatch.setattr(opcua.Browser.survey, "__defaults__", ("", 30))
    assert discover(tmp_path, foreign.server.url, options=("--insecure", "--only", "Skid/*"), seconds=0.5) == 0
    assert "cut off" not in capsys.readouterr().out
    assert len(load_plant(tmp_path / "plant.yaml").signals) == 4
    assert discover(tmp_path / "b", foreign.server.url, options=("--insecure", "--only", "*/QT-*"), seconds=0.5) == 0
    assert "nodes were browsed, and not all of them looked below; choose by --only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pattern", "path", "may"),
    [
        *(("Area7/*", "Area7", True), ("Area7/*", "Area7/Unit1", True), ("Area7/*", "Area70", False)),
        *(("area7/unit1*", "Area7/Unit12", True), ("Area7/Unit1*", "Area7/Unit2", False)),
        *(("*/TIC*", "Area1", True), ("TIC101", "Area1", True), ("A[12]/x", "A1", True)),
    ],
)
def test_which_folders_may_hold_what_a_pattern_fits(pattern, path, may):
    assert opcua.may_hold(tuple(path.split("/")), pattern) is may


def test_texts_and_arrays_are_left_out_and_counted(tmp_path, capsys):
    tags = (Tag("A/Name", kind="String", still=True), Tag("A/TT1", "Cel"))
    with Background(ForeignServer(tags)) as server:

        async def array():
            folder = await server.server.folder("A")
            await folder.add_variable(server.server._index, "Curve", [1.0, 2.0], ua.VariantType.Double)

        server.run(array())
        assert discover(tmp_path, server.server.url, seconds=0.5) == 0
    assert [s.name for s in load_plant(tmp_path / "plant.yaml").signals] == ["TT1"]
    said = capsys.readouterr().out
    for line in ("no number (Name): 1", "an array (Curve): 1"):
        assert f"left out, {line}" in said


def test_enumerations_are_read_with_their_words(tmp_path):
    """Words beside the variable, or those of a data type of its own."""
    tags = (Tag("A/TIC7/PV", "Cel"), Tag("A/TIC7/SP", "Cel", write=True, range=(0, 9)), Tag("A/TT1", "Cel"))
    with Background(ForeignServer(tags)) as running:

        async def enumerations():
            server = running.server
            loop = await server.folder("A/TIC7")
            mode = await loop.add_variable(server._index, "Mode", 1, ua.VariantType.Int32)
            words = [ua.LocalizedText(word) for word in ("Hand", "Automatik")]
            await mode.add_property(0, "EnumStrings", words)
            own = await new_enum(server._server, server._index, "LineState", ["Stillstand", "Produktion", "CIP"])
            folder = await server.folder("A")
            await folder.add_variable(server._index, "Zustand", 1, ua.VariantType.Int32, datatype=own.nodeid)

        running.run(enumerations())
        assert discover(tmp_path, running.server.url, seconds=0.5) == 0
    signals = load_plant(tmp_path / "plant.yaml").by_name
    assert signals["TIC7.Mode"].description == "0=Hand, 1=Automatik"
    assert (signals["TIC7.Mode"].low, signals["TIC7.Mode"].high) == (0, 1)
    assert signals["Zustand"].description == "0=Stillstand, 1=Produktion, 2=CIP"
    assert signals["TIC7.SP"].auto_tag == "TIC7.Mode"
    assert [unsure(tmp_path, name) for name in ("TIC7.Mode", "Zustand", "TIC7.SP")] == [[], [], []]


def proposed_of(*tags):
    """Signals proposed for tags that were seen, by their own names, each with its doubts."""
    name_tags(tags)
    signals, _ = propose(tags, 1.0, 60.0)
    return {tag.path[-1]: (found.signal, found.doubts) for tag, found in zip(tags, signals, strict=True)}


def tag_seen(path, values, **known):
    tag = FoundTag(path=tuple(path.split("/")), address=path, **known)
    for i, value in enumerate(values):
        tag.seen.add(value, float(i))
    return tag


def test_limits_that_a_minute_cannot_show_are_not_made_of_it():
    made = proposed_of(
        tag_seen("A/LT1", [58.0, 59.0, 58.5], unit="%"),
        tag_seen("A/PT1", [812_345.0, 812_345.5, 812_344.9], unit="Pa"),
    )
    assert (made["LT1"][0].low, made["LT1"][0].high) == (0.0, 100.0)
    assert (made["PT1"][0].low, made["PT1"][0].high) == (812_344.84, 812_345.56)


@pytest.mark.parametrize(
    ("tag", "counter"),
    [
        (tag_seen("A/31FQ0070", range(48_211, 48_231), unit="m3"), True),
        (tag_seen("A/E1", [812_345 + 0.1 * i for i in range(20)], unit="kW.h"), True),
        (tag_seen("A/Menge", [1.0, 2.0, 3.0, 3.0, 4.0], description="Menge gesamt"), True),
        (tag_seen("A/31FQ0070", [5.0, 6.0, 5.5, 7.0, 8.0], unit="m3"), False),
        (tag_seen("A/LT1", range(20), unit="m3"), False),
        (tag_seen("A/31FQ0071", [7.0] * 20, unit="m3"), False),
        (tag_seen("A/Наработка ч", [10_432.0 + i / 360 for i in range(6)], unit="h"), True),
        (tag_seen("A/Pump running hours", [10_432.0 + i / 360 for i in range(6)]), True),
        (tag_seen("A/Sys1", [10 * i % 256 for i in range(60)], kind=Kind.WHOLE), True),
        (tag_seen("A/Batch", [10 * i % 256 for i in range(60)]), False),
        (tag_seen("A/Speed", [1150, 1152, 1151, 1150, 1153, 1149] * 5, kind=Kind.WHOLE), False),
    ],
)
def test_what_only_grows_and_adds_up_is_a_counter(tag, counter):
    assert counts(tag) is counter


def test_a_unit_that_is_not_served_comes_from_what_belongs_together():
    made = proposed_of(
        tag_seen("A/FIC1.SP", [5], unit="t/h", low=0.0, high=9.0, writable=True),
        tag_seen("A/FIC1.PV", [5, 6], unit="t/h"),
        tag_seen("A/FIC1.OP", [5, 6], low=0.0, high=100.0),
        tag_seen("Tank A/Level", [5, 6], unit="m3", writable=False),
        tag_seen("Tank B/Inhalt", [5, 6]),
    )
    assert made["FIC1.OP"][0].unit == "%"
    assert "no unit is served: an output of 0 to 100" in made["FIC1.OP"][1]
    assert (made["Inhalt"][0].unit, "no unit is served" in made["Inhalt"][1]) == ("1", True)
    tags = [tag_seen(f"Tank {letter}/Level", [5, 6], unit="m3" * (letter == "A")) for letter in "AB"]
    name_tags(tags)
    second = propose(tags, 1.0, 60.0)[0][1]
    assert (second.signal.unit, second.doubts[0]) == ("m3", "unit of others that are called Level, for it has none")


def test_a_folder_names_a_place_and_only_a_loop_speaks_for_its_parts():
    made = proposed_of(tag_seen("EV3 Verdampfer/Konzentrat TS", [5, 6]), tag_seen("EV3/Out", [5, 6]))
    assert not made["Konzentrat TS"][0].machine
    assert made["Out"][0].machine


def test_an_acknowledgement_is_no_setpoint():
    tags = (
        tag_seen("A/Alarmquittung", [0], kind=Kind.TRUTH, writable=True),
        tag_seen("A/HeaterEnable", [0], kind=Kind.TRUTH, writable=True),
        *(tag_seen(f"A/TT{i}", [5, 6], writable=False) for i in range(5)),
    )
    made = proposed_of(*tags)
    assert made["Alarmquittung"][0].role is Role.MEASURED
    assert made["HeaterEnable"][0].role is Role.MANIPULATED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ftp://x"], "'ftp://x' is not accepted; expected opc.tcp://HOST:PORT"),
        (
            ["opc.tcp://x:1", "--certificate", "y"],
            "--certificate, --private-key and --peer-certificate: give all three",
        ),
        (["mqtt://me:secret@x:1"], "mqtt://x:1: holds a password; use --username and --password-file"),
        (["mqtt://x:1", "--seconds", "0"], "--seconds and --most: must be positive"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(arguments, message, tmp_path, capsys):
    assert main(["discover", *arguments, "--site", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_an_address_that_does_not_answer_is_named_and_the_others_are_taken(foreign, tmp_path, capsys):
    urls = (foreign.server.url, "mqtt://127.0.0.1:1", "rtsp://127.0.0.1:1/x", "opc.tcp://127.0.0.1:1")
    assert discover(tmp_path, *urls, options=("--insecure", "--only", "*FIC-102*"), seconds=0.5) == 1
    said = capsys.readouterr().err
    assert [url for url in urls if f"fusion: {url}: " in said] == list(urls[1:])
    assert len(load_plant(tmp_path / "plant.yaml").signals) == 4


# --- a broker


MESSAGES = {
    "kiln/TT1": "{0}.5",
    "kiln/TIC1.SP": '{{"value": 80, "unit": "°C", "timestamp": "2026-11-30T12:00:00Z", "quality": "good"}}',
    "kiln/pump": '{{"speed": {0}, "running": true, "meta": {{"firmware": "1.2"}}, "ts": {1}}}',
    "kiln/array": '{{"data": [{0}, 2.5]}}',
    "kiln/list": '[{{"name": "FT7", "value": {0}}}]',
    "kiln/text": "hello",
    "kiln/${{x}}": "1",
    "spBv1.0/plant/DDATA/edge/pump": "x",
    "fusion/kiln/v1/health": '{{"a": 1}}',
}


@pytest.fixture
def broker(tmp_path):
    made = Mosquitto(tmp_path, with_passwords(tmp_path), ("-u", "fusion", "-P", PASSWORD))
    yield made
    made.stop()


@needs_broker
def test_topics_and_payloads_of_a_broker(broker, tmp_path, capsys):
    site, stop = tmp_path / "kiln", threading.Event()

    def feed():
        number = 0
        while not stop.is_set():
            number += 1
            for topic, text in MESSAGES.items():
                broker.write(topic.format(), text.format(number, time.time_ns() // 1_000_000))

    thread = threading.Thread(target=feed)
    thread.start()
    login = ("--username", "fusion", "--password-file", str(tmp_path / "secret"))
    assert discover(site, f"mqtt://127.0.0.1:{broker.port}", options=login, seconds=2) == 0
    stop.set()
    thread.join()
    plant, config = load_plant(site / "plant.yaml"), load_daemon_config(site / "daemon.yaml")
    assert set(plant.by_name) == {"TT1", "TIC1.SP", "pump.speed", "pump.running", "data.0", "data.1", "FT7"}
    setpoint = plant.by_name["TIC1.SP"]
    assert (setpoint.unit, plant.by_name["TT1"].description) == ("Cel", "")
    settings = config.connectors["broker"]
    assert isinstance(settings, MqttConfig)
    assert settings.secret() == PASSWORD
    topics = {topic.signal: topic for topic in settings.topics}
    assert topics["TT1"].format == "plain"
    assert ((pump := topics["pump.speed"]).value_path, pump.time_path, pump.time_unit) == ("speed", "ts", "ms")
    assert (topics["TIC1.SP"].time_unit, topics["TIC1.SP"].quality_path) == ("iso", "quality")
    assert topics["FT7"].value_path == "0.value"
    said = capsys.readouterr().out
    assert "Sparkplug B, not proposed as tags here: 1 nodes and devices, plant/edge/pump" in said
    assert "sparkplug: [{group: plant, node: edge, device: pump, signals: [METRIC]}]" in said
    assert "left out, no number in it: 1" in said
    assert "left out, ${ in its address: 1" in said
    assert "taken by its place in an array: may it change?" in unsure(site, "FT7")
    daemon = site / "daemon.yaml"
    daemon.write_text(daemon.read_text().replace("port: 1883", f"port: {free_port()}"))
    assert main(["doctor", str(site), "--seconds", "1"]) == 0  # that no broker of the results is there is no fault


# --- a stranger's first commands


def test_init_begins_a_site_that_loads_and_overwrites_nothing(tmp_path, capsys):
    site = tmp_path / "Werk Süd"
    assert main(["init", str(site)]) == 0
    assert f"next: fusion discover opc.tcp://HOST:4840 mqtt://HOST:1883 --site {site}" in capsys.readouterr().out
    assert load_plant(site / "plant.yaml").name == "werk-sud"
    assert load_daemon_config(site / "daemon.yaml").connectors == {}
    (site / "plant.yaml").write_text("name: mine\nsignals: []\n")
    (site / "daemon.yaml").unlink()
    assert main(["init", str(site)]) == 0
    assert (site / "plant.yaml").read_text() == "name: mine\nsignals: []\n"
    assert (site / "daemon.yaml").exists()


def test_a_site_that_was_only_begun_takes_the_plant_of_its_history(tmp_path):
    main(["init", str(tmp_path)])
    rows = "".join(f"2026-01-05T00:{m:02d}:{s:02d}Z,{20 + s / 60},{s}\n" for m in range(20) for s in range(60))
    (tmp_path / "history.csv").write_text("time,TT1,FT2\n" + rows)
    assert main(["import", str(tmp_path / "history.csv"), "--site", str(tmp_path), "--parts", "2"]) == 0
    assert set(load_plant(tmp_path / "plant.yaml").by_name) == {"TT1", "FT2"}


def test_an_encrypted_server_is_found_by_certificates_that_the_site_makes_and_keeps(tmp_path, capsys):
    site = tmp_path / "secure"
    server_key, server_cert = tmp_path / "server.pem", tmp_path / "server.der"
    usage = [ExtendedKeyUsageOID.SERVER_AUTH]
    make = setup_self_signed_certificate(server_key, server_cert, "urn:server", "plc-7", usage, {"commonName": "s"})
    asyncio.run(make)
    peer = OpcUaPeer(tags=("TT101",))
    peer.certificates = (str(server_cert), str(server_key))
    with Background(Peer(peer)):
        assert discover(site, peer.url, options=(), seconds=0.5) == 0
        assert "compare its SHA-256 with the server's own: " in capsys.readouterr().out
        settings = load_daemon_config(site / "daemon.yaml").connectors["plc"]
        assert (settings.insecure, settings.server_name) == (False, "plc-7")
        assert (site / "pki" / "opcua.key.pem").stat().st_mode & 0o77 == 0
        assert "certificate: pki/opcua.der" in (site / "daemon.yaml").read_text()
        assert discover(site, peer.url, options=(), seconds=0.5) == 0
        assert "1 signals are in" in capsys.readouterr().out
        next((site / "pki").glob("127*.der")).write_bytes(b"another")
        assert discover(site, peer.url, options=(), seconds=0.5) == 1
        assert "shows another certificate than" in capsys.readouterr().err


class Peer:
    """A server of the connectors' tests that rests."""

    def __init__(self, peer):
        self.peer = peer

    async def __aenter__(self):
        await self.peer.start()

    async def __aexit__(self, *_):
        await self.peer.stop()

    async def turn(self):
        """It rests."""


# --- names

NAMED = """
TIC101.SP>TIC101.PV FIC_203_SP>FIC_203_PV DB10.Temp_Soll>DB10.Temp_Ist SetPoint_Level>Level_Actual FIC100/SV>FIC100/PV
A/PID1/SP/CV>A/PID1/PV/CV LIC5/SP_Int>LIC5/PV_In Oven_Temp_SP_degC>Oven_Temp_PV_degC TIC-301.SP>TT-301
Pump1.SpeedRef>Pump1.Speed MixerSpeedSetpoint>MixerSpeed Tank1/LevelSP>Tank1/Level Consigne_Debit>Mesure_Debit
Setpoints/TIC7>Measurements/TIC7 温度设定值>温度测量值 Уставка/Давление>Измерение/Давление TIC8SP>TIC8PV
"""


@pytest.mark.parametrize("pair", NAMED.split())
def test_a_setpoint_and_what_it_sets_are_found_by_many_ways_of_naming(pair):
    others = ("TT-302", "Ambient", "Running", "SPARE_1", "FIC_203_OUT", "LevelAlarm")
    paths = (*pair.split(">"), *others)
    tags = [FoundTag(path=tuple(p.split("/")), address=p, writable=p == paths[0]) for p in paths]
    name_tags(tags)
    setpoint, measured, *rest = (judge(tags)[tag.name] for tag in tags)
    assert (setpoint.role, measured.role) == (Role.MANIPULATED, Role.CONTROLLED)
    assert setpoint.loop == tags[1].name
    assert {own.role for own in rest} == {Role.MEASURED}


@pytest.mark.parametrize(
    ("said", "unit", "known"),
    [
        *(
            ("°C", "Cel", True),
            ("m³/h", "m3/h", True),
            ("RPM", "/min", True),
            ("Nm3/h", "m3/h", True),
            ("%RH", "%", True),
        ),
        *(
            ("kPa", "kPa", True),
            ("MW", "MW", True),
            ("mW", "mW", True),
            ("bananas", "bananas", False),
            ("", "1", True),
        ),
    ],
)
def test_spellings_of_units_are_ucum_or_unknown(said, unit, known):
    assert from_text(said) == (unit, known)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtsp://10.0.0.5:554/cam1/main", "cam1_main"),
        ("rtsp://10.0.0.5/Streaming/Channels/101", "camera_streaming_channels_101"),
        ("rtsp://pump-cam.plant.local/stream1", "pump_cam_stream1"),
        ("rtsp://plc/kiln", "kiln"),
        ("rtsp://10.0.0.5", "camera"),
        ("rtsp://10.0.0.5/user=admin&password=geheim&channel=1&stream=0.sdp", "camera"),
    ],
)
def test_a_camera_is_called_by_what_tells_it_from_others(url, name):
    assert media_name(url) == name


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://u:geheim@h:554/live?x=1", "rtsp://h:554/live?x=1"),
        ("rtsp://h/user=a&password=geheim&channel=1", "rtsp://h/user=a&password=***&channel=1"),
        ("rtsp://h/live?pwd=geheim&channel=1", "rtsp://h/live?pwd=***&channel=1"),
    ],
)
def test_a_password_is_not_shown_wherever_it_is(url, shown):
    assert redacted(url) == shown


def test_codes_of_units_and_words_that_hold_one():
    assert (from_code(4408652), from_code(0), from_code(-1)) == ("Cel", "", "")
    assert [from_words(*said) for said in (("Débit vapeur kg/h", ""), ("VT-1", "mm/s RMS"), ("Мощность_кВт", ""))] == [
        "kg/h",
        "mm/s",
        "kW",
    ]
    assert [from_words(*said) for said in (("I/O", "on/off"), ("TT1", "supply/return"), ("A/B", ""))] == ["", "", ""]
    assert (from_words("oil_temp_c", ""), from_words("TT1", "Oil [°C]"), from_words("c", "")) == ("Cel", "Cel", "")
