"""`fusion doctor`: every fault of a site is one line with what to do, and a sound one passes."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fusion.checkpoint import save_checkpoint
from fusion.cli import main
from fusion.daemon.settings import load_daemon_config
from fusion.model_store import ModelStore
from fusion.plant import Modality
from fusion.plant_file import load_plant
from fusion.recordings.writer import RecordingWriter, relabel
from fusion.simulator.live import LiveConfig, serve
from fusion.simulator.scenario import load_scenario
from fusion.simulator.simulation import Simulation
from tests.contract.peers import free_port
from tests.foreign_server import Background, ForeignServer, Tag, discover
from tests.mosquitto import Mosquitto, needs_broker
from tests.small_plants import write_recording

ROOT = Path(__file__).parent.parent
START_S = 1_790_000_000
LIME = load_plant(ROOT / "configs" / "plant" / "lime.yaml")
TAGS = (
    Tag("A/TIC1/PV", "Cel", range=(0, 100)),
    Tag("A/TIC1/SP", "Cel", write=True, still=True, range=(0, 100)),
    Tag("A/PT2", "bar", still=True, range=(0, 10)),
)


@pytest.fixture(scope="module")
def server():
    with Background(ForeignServer(TAGS)) as running:
        yield running.server


@pytest.fixture
def site(server, tmp_path):
    """A site of the server above, whose results go to a broker that is not there."""
    folder = tmp_path / "site"
    assert discover(folder, server.url, seconds=0.3) == 0
    rewrite(folder / "daemon.yaml", "port: 1883", f"port: {free_port()}")
    return folder


def rewrite(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def examined(capsys, *arguments, seconds=0.5):
    """The exit code, and each check by what it is of."""
    capsys.readouterr()
    code = main(["doctor", *map(str, arguments), "--seconds", str(seconds), "--json"])
    return code, {check["what"]: check for check in json.loads(capsys.readouterr().out)}


def certificate(file, days):
    """A certificate of our own that ends in some days."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=400)).not_valid_after(now + timedelta(days=days))
    file.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


@needs_broker
def test_a_sound_site_passes_and_what_rests_is_said(site, tmp_path, capsys):
    rewrite(site / "plant.yaml", "name: PT2,", "name: PT2, period_s: 0.1,")
    broker = Mosquitto(tmp_path)
    try:
        port = load_daemon_config(site / "daemon.yaml").publish.port
        rewrite(site / "daemon.yaml", f"port: {port}", f"port: {broker.port}")
        code, checks = examined(capsys, site)
    finally:
        broker.stop()
    assert code == 0
    states = {what: check["state"] for what, check in checks.items()}
    assert states["connector plc"] == states["broker of the results"] == states["connector plc, clock"] == "ok"
    assert states["model"] == "warn"
    assert checks["model"]["text"] == "none yet: 0.00 of 1 h of normal operation recorded"
    assert checks["record"]["state"] in ("ok", "warn")  # by the disk of this machine
    assert checks["connector plc, frozen"]["text"] == "always the same from PT2"


def test_what_is_wrong_is_said_with_what_to_do_and_the_exit_code(site, capsys):
    rewrite(
        site / "daemon.yaml",
        "connectors:",
        "connectors:\n  gone: {kind: video, url: 'rtsp://127.0.0.1:1/x', signal: eye}",
    )
    rewrite(
        site / "plant.yaml", "signals:", "signals:\n  - {name: eye, modality: video, shape: [8, 8]}\n  - {name: lone}"
    )
    code, checks = examined(capsys, site)
    assert code == 1
    assert checks["connector gone"]["state"] == "fail"
    assert "switched on" in checks["connector gone"]["advice"]
    assert checks["signals"]["text"] == "no connector carries lone"
    assert checks["broker of the results"]["state"] == "warn"
    assert "none answers at" in checks["broker of the results"]["text"]
    assert "`fusion up` runs one" in checks["broker of the results"]["advice"]
    assert main(["doctor", "--config", str(site / "daemon.yaml"), "--seconds", "0.2"]) == 1
    assert "fail  connector gone: " in capsys.readouterr().out


def test_a_tag_that_is_not_there_is_named(site, capsys):
    rewrite(site / "daemon.yaml", f"PT2: nsu={ForeignServer.URI};i=", f"PT2: nsu={ForeignServer.URI};i=99")
    code, checks = examined(capsys, site)
    assert code == 1
    assert checks["connector plc, values"]["text"].startswith("none of PT2 in ")


@pytest.mark.parametrize(("days", "state", "said"), [(-1, "fail", "expired on"), (5, "warn", "valid until")])
def test_certificates_that_end_are_named(site, days, state, said, capsys):
    certificate(site / "ours.der", days)
    certificate(site / "server.der", 300)
    rewrite(
        site / "daemon.yaml",
        "insecure: true",
        "certificate: ours.der\n    private_key: ours.pem\n    server_certificate: server.der",
    )
    code, checks = examined(capsys, site)
    assert code == 1
    own = checks["connector plc, certificate"]
    assert (own["state"], said in own["text"]) == (state, True)
    assert checks["connector plc, server_certificate"]["state"] == "ok"


def test_a_model_of_another_plant_and_a_damaged_recording_are_named(site, capsys):
    plant = load_plant(site / "plant.yaml")
    store = ModelStore(site / "models")
    save_checkpoint(store.next_place(), plant, {"a": np.zeros(1)}, {})
    store.choose("0001", "kim", "by hand")
    with RecordingWriter(site / "recordings" / "one", plant):
        pass
    with RecordingWriter(site / "imports" / "two" / "recordings" / "x", plant):
        pass
    _, checks = examined(capsys, site)
    assert checks["model"]["state"] == checks["recordings"]["state"] == "ok"
    assert "; 0001, one of 1, in use since 20" in checks["model"]["text"]
    assert checks["model"]["text"].endswith(" by kim, by hand")
    rewrite(site / "plant.yaml", "name: PT2, unit: bar", "name: PT2, unit: kPa")
    file = site / "imports" / "two" / "recordings" / "x" / "process.parquet"
    file.write_bytes(file.read_bytes() + b"x")
    _, checks = examined(capsys, site)
    assert "signal PT2: unit kPa, not bar" in checks["model"]["text"]
    assert "process.parquet" in checks["recordings"]["text"]
    rewrite(site / "plant.yaml", "name: PT2, unit: kPa", "name: PT2, description: other words, unit: bar")
    assert examined(capsys, site)[1]["model"]["state"] == "ok"


def test_what_the_daemon_recorded_is_examined_and_its_room(site, capsys):
    plant, records = load_plant(site / "plant.yaml"), site / "records"
    for i in range(3):
        values = {"PT2": np.full(600, 5.0)}
        write_recording(records / f"2026010{i + 1}T000000Z", plant, values, START_S + 3600 * i)
    (records / "open" / "00001.damaged").mkdir(parents=True)
    _, checks = examined(capsys, site)
    assert checks["recordings"]["text"] == "3 are as they were written"
    assert checks["recordings, damaged"]["text"].startswith("00001.damaged left out of ")
    assert checks["model"]["text"].startswith("none yet: 0.50 of 1 h")
    assert "days are kept" in checks["record"]["text"]
    relabel(records / "20260102T000000Z", "fault", [])
    rewrite(site / "daemon.yaml", "budget_gib: 50", "budget_gib: 0.000001")
    _, checks = examined(capsys, site)
    assert checks["model"]["text"].startswith("none yet: 0.33 of 1 h")
    assert "are marked" in checks["record"]["text"]
    rewrite(site / "daemon.yaml", "budget_gib: 0.000001", "free_gib: 1000000000")
    file = records / "20260103T000000Z" / "process.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    code, checks = examined(capsys, site)
    assert code == 1
    assert "process.parquet" in checks["recordings"]["text"]
    assert checks["record"]["state"] == "fail"
    rewrite(site / "daemon.yaml", "free_gib: 1000000000", "budget_gib: 1000000")
    assert "the disk has room for " in examined(capsys, site)[1]["record"]["text"]


def test_a_configuration_that_cannot_be_read_is_the_one_thing_said(tmp_path, capsys):
    main(["init", str(tmp_path)])
    (tmp_path / "plant.yaml").write_text("name: x\nsingals: []\n")
    code, checks = examined(capsys, tmp_path)
    assert code == 1
    assert list(checks) == ["configuration"]
    assert "singals: unknown key" in checks["configuration"]["text"]


class Simulated:
    """The simulated line behind its own servers, for a thread of its own."""

    def __init__(self):
        self.config = LiveConfig(opcua_port=0, mqtt_port=0, rtsp_port=0, lidar_port=free_port())
        self.stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        scenario = load_scenario(ROOT / "configs" / "scenario" / "live.yaml")
        self._stop, ready = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(serve(Simulation(scenario, LIME), LIME, self.config, self._stop, ready))
        await ready.wait()

    async def __aexit__(self, *_):
        self._stop.set()
        await self._task

    async def turn(self):
        """It moves by itself."""


@needs_broker
def test_the_simulated_plant_is_found_by_all_its_servers_and_is_sound(tmp_path, capsys):
    line, site = Simulated(), tmp_path / "lime"
    with Background(line):
        ports = line.config
        opcua, mqtt = f"opc.tcp://127.0.0.1:{ports.opcua_port}", f"mqtt://127.0.0.1:{ports.mqtt_port}"
        camera, sound = (f"rtsp://127.0.0.1:{ports.rtsp_port}/{name}" for name in ("camera", "microphone"))
        assert discover(site, opcua, mqtt, camera, sound, f"lidar://127.0.0.1:{ports.lidar_port}", seconds=4) == 0
        rewrite(site / "daemon.yaml", "port: 1883", f"port: {ports.mqtt_port}")
        code, checks = examined(capsys, site, seconds=3)
    assert code == 0, checks
    plant = load_plant(site / "plant.yaml")
    truth = [s for s in LIME.of(Modality.PROCESS) if s.name in plant.by_name]
    assert len(truth) == 31
    right = [s for s in truth if plant.by_name[s.name].role is s.role]
    assert len(right) >= 0.8 * len(truth)
    for name in ("camera", "microphone"):
        made, own = plant.by_name[name], LIME.by_name[name]
        assert (made.modality, made.shape, made.period_s) == (
            own.modality,
            own.shape,
            pytest.approx(own.period_s, rel=0.2),
        )
    assert plant.by_name["lidar"].shape[0] > 1000
    assert plant.by_name["lidar"].period_s == pytest.approx(0.2, rel=0.3)
    assert "h264 96x96" in (site / "plant.yaml").read_text()
