from pathlib import Path

import pytest

from connectors.kinds import KINDS, settings_of, source_of
from connectors.opcua.config import OpcUaConfig
from control.advice.licence import Level
from fusion.daemon.settings import load_daemon_config
from fusion.errors import ConfigError
from fusion.plain import plain
from fusion.plant_file import load_plant
from fusion.simulator.scenario import load_scenario
from fusion.simulator.simulation import Simulation
from fusion.training.settings import train_config
from fusion.training.train import decisive
from models.networks.size import AntiCollapse, preset
from models.training.parallel import Parallel

CONFIGS = Path(__file__).parent.parent / "configs"
DEMO = CONFIGS / "demo.yaml"


def build_daemon(file):
    config = load_daemon_config(file)
    plant = load_plant(Path(config.plant))
    sources = [source_of(connector, plant, name=name) for name, connector in config.connectors.items()]
    named = {signal for source in sources for signal in source.signals}
    assert named == {signal.name for signal in plant.signals}


def build_scenario(file):
    assert Simulation(load_scenario(file), load_plant(CONFIGS / "plant" / "lime.yaml"))


BUILD = {"configs": build_daemon, "plant": load_plant, "scenario": build_scenario}


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.yaml")), ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_every_file_composes_and_builds(file):
    BUILD[file.parent.name](file)


def test_overrides_reach_their_place():
    config = load_daemon_config(
        DEMO,
        [
            "publish.port=1999",
            "connectors.plc.url=opc.tcp://other:4841",
            "connectors.plc.username=reader",
            "~connectors.camera",
            "detector.evidence.top_signals=3",
            "advisor.level=shadow",
            "advisor.planner.constraints.band_share=0.5",
            "timeline.lateness_s=1e-1",
        ],
    )
    assert config.publish.port == 1999
    assert isinstance(config.connectors["plc"], OpcUaConfig)
    assert config.connectors["plc"].url == "opc.tcp://other:4841"
    assert config.connectors["plc"].username == "reader"
    assert "camera" not in config.connectors
    assert config.detector.evidence.top_signals == 3
    assert config.advisor.level is Level.SHADOW
    assert config.advisor.planner.constraints.band_share == 0.5
    assert config.timeline.lateness_s == 0.1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("connectors.camera.urll=x", "connectors.camera.urll: unknown key; accepted: url, signal"),
        (
            "connectors.camera.supervision.stale=1",
            "connectors.camera.supervision.stale: unknown key; accepted: open_ti",
        ),
        ("connectors.camera.kind=opca", "connectors.camera.kind: 'opca' is not accepted; expected one of opcua, mqtt"),
        ("~connectors.camera.kind", "connectors.camera.kind: missing; expected one of opcua, mqtt, video"),
        ("~connectors.camera.url", "connectors.camera.url: missing"),
        (
            "connectors.camera.transport=post",
            "connectors.camera: transport: 'post' is not accepted; expected one of tcp",
        ),
        ("timelin.lateness_s=1", "timelin: unknown key; accepted: plant, model, connectors, timeline"),
        ("timeline.lateness_s=abc", "timeline.lateness_s: 'abc' is not accepted; expected a number"),
        ("timeline.lateness_s=-1", "timeline.lateness_s: -1.0 must lie between"),
        ("advisor.planner.sample=3", "advisor.planner.sample: unknown key; accepted: samples"),
        (
            "advisor.level=shout",
            "advisor.level: 'shout' is not accepted; expected one of observe, shadow, advise, supervised",
        ),
        ("publish.port=high", "publish.port: 'high' is not accepted; expected a whole number"),
        ("connectors=5", "connectors: 5 is not accepted; expected a mapping"),
        ("connectors.skid.topics=3", "connectors.skid.topics: 3 is not accepted; expected a list"),
        ("connectors.skid.silence_s=[]", r"connectors.skid.silence_s: \[\] is not accepted; expected a number"),
        ("connectors.camera.username=[]", r"connectors.camera.username: \[\] is not .*; expected a text or null"),
        ("publish.port=[", "publish.port"),
    ],
)
def test_a_wrong_key_or_value_is_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_daemon_config(DEMO, [override])


def test_letters_are_kept_on_disk_whatever_else_is_said_of_the_broker(tmp_path):
    (tmp_path / "site.yaml").write_text("plant: p.yaml\nmodel: m\npublish: {host: broker.plant}\n")
    assert load_daemon_config(tmp_path / "site.yaml").publish.outbox == str(tmp_path / "var/outbox.sqlite")
    assert load_daemon_config(tmp_path / "site.yaml", ["publish.outbox="]).publish.outbox == ""


def test_the_kind_may_stand_in_a_defaults_list(tmp_path):
    short = "plant: p.yaml\nmodel: m\nconnectors: {plc: {kind: replay, path: x}}\n"
    long = short.replace("kind: replay, ", "")
    defaults = "defaults: [daemon_schema, connector/replay@connectors.plc, _self_]\n"
    (tmp_path / "short.yaml").write_text(short)
    (tmp_path / "long.yaml").write_text(defaults + long)
    (tmp_path / "none.yaml").write_text(long)
    assert load_daemon_config(tmp_path / "long.yaml") == load_daemon_config(tmp_path / "short.yaml")
    with pytest.raises(ConfigError, match=r"none.yaml: connectors.plc.kind: missing; expected one of opcua, mqtt"):
        load_daemon_config(tmp_path / "none.yaml")


def test_a_folder_named_like_a_key_changes_nothing(tmp_path):
    (tmp_path / "daemon.yaml").write_text("plant: a.yaml\nmodel: m\nconnectors: {x: {kind: replay, path: p}}\n")
    for name in ("plant", "model", "publish", "connectors"):
        (tmp_path / name).mkdir()

    def load(*overrides):
        return load_daemon_config(tmp_path / "daemon.yaml", overrides)

    assert load("plant=plant/b.yaml", "model=model").plant == str(tmp_path / "plant" / "b.yaml")
    assert load("+publish={port: 1999}").publish.port == 1999
    assert load("~connectors").connectors == {}
    assert load("connectors.x.path=q", "connectors.y.kind=replay", "~connectors.x", "~connectors.y").connectors == {}
    with pytest.raises(ConfigError, match=r"plant: None is not accepted"):
        load("plant=null")
    for override, message in (("+x=1", "x: unknown key"), ("~x", "~x: there is no"), ("plant=a,b", "expected one")):
        with pytest.raises(ConfigError, match=message) as told:
            load(override)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"plant: p\na: [1\n", r"a\.yaml: not YAML \(line 3: expected ',' or ']'"),
        ("a.yaml", b"a: 1\na: 2\n", r"a\.yaml: not YAML \(line 2: found duplicate key a\)"),
        ("a.yaml", b"a: \xff\n", r"a\.yaml: not YAML \('utf-8' codec"),
        ("a.yaml", b"a: \0\n", r"a\.yaml: not YAML \(unacceptable character"),
        ("a.yaml", b"3", r"a\.yaml: .*int"),
        ("a.yaml", b"defaults: 3\n", r"a\.yaml: .*defaults must be a list"),
        ("a.yaml", b"defaults: [b]\n", r"b\.yaml: not YAML \(line 1: found unhashable key\)"),
        ("a.yml", b"plant: p\n", r"a\.yml: not accepted as a configuration; expected a name that ends in \.yaml"),
        ("a", b"plant: p\n", r"a: not accepted as a configuration; expected a name that ends in \.yaml"),
    ],
)
def test_a_file_that_cannot_be_composed_is_named_with_the_reason(tmp_path, name, content, message):
    (tmp_path / "b.yaml").write_text("{a: 1}: 2\n")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message) as told:
        load_daemon_config(tmp_path / name)
    assert "\n" not in str(told.value)


FILES = """
plant: p.yaml
model: ~/m
publish: {outbox: o.sqlite, username: u, password_file: secret/p}
connectors:
  plc: {kind: opcua, url: "opc.tcp://h", username: u, password_file: secret/p, certificate: pki/c.der,
    private_key: pki/k.pem, server_certificate: /pki/s.der}
  skid: {kind: mqtt, topics: [], username: u, password_file: secret/p, tls: true, tls_ca: ca.pem}
  camera: {kind: video, url: film.mkv, signal: camera, username: u, password_file: secret/p}
  microphone: {kind: audio, url: "rtsp://h/a", signal: microphone}
  stream: {kind: audio, url: "file:sound.wav", signal: microphone}
  silo: {kind: lidar, signal: s, paths: ["clouds/*.pcd", "/abs/*.ply", "~/c.pcd"]}
  past: {kind: replay, path: ../runs/1}
"""


def test_names_of_files_begin_at_the_folder_of_the_yaml_for_every_kind(tmp_path, monkeypatch):
    folder = tmp_path / "site[1]"
    (folder / "clouds").mkdir(parents=True)
    (folder / "clouds" / "1.pcd").touch()
    (folder / "daemon.yaml").write_text(FILES)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    config = load_daemon_config(Path("site[1]/daemon.yaml"), ["connectors.past.path=../runs/2"])
    assert (config.plant, config.model, config.publish.outbox) == (
        f"{folder}/p.yaml",
        "/home/me/m",
        f"{folder}/o.sqlite",
    )
    plc, skid, camera, microphone, stream, silo, past = config.connectors.values()
    for part in (config.publish, plc, skid, camera):
        assert part.password_file == f"{folder}/secret/p"
    assert (plc.certificate, plc.private_key) == (f"{folder}/pki/c.der", f"{folder}/pki/k.pem")
    assert (plc.server_certificate, skid.tls_ca) == ("/pki/s.der", f"{folder}/ca.pem")
    assert (camera.url, microphone.url, stream.url) == (f"{folder}/film.mkv", "rtsp://h/a", "file:sound.wav")
    assert silo.files() == [f"{folder}/clouds/1.pcd"]
    assert silo.paths[1:] == ["/abs/*.ply", "/home/me/c.pcd"]
    assert past.path == f"{folder}/../runs/2"
    assert {type(part) for part in config.connectors.values()} == {settings for settings, _ in KINDS.values()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_connector_refuses_what_it_does_not_know(kind):
    with pytest.raises(ConfigError, match=r"connectors\.x\.nothing: unknown key; accepted: .*supervision"):
        settings_of({"kind": kind, "nothing": 1}, "connectors.x")


def test_training_settings_are_typed():
    assert train_config(["seconds=5", "seed=3"]).fit.seed == 3
    with pytest.raises(ConfigError, match="secnds: unknown key; accepted: size, seed, seconds"):
        train_config(["secnds=5"])
    with pytest.raises(ConfigError, match=r"size.*demo or plant"):
        train_config(["size=huge"])
    with pytest.raises(ConfigError, match=r"^seed=1,2: .*--multirun"):
        train_config(["seed=1,2"])


def test_every_component_of_a_training_is_set_by_name():
    config = train_config(
        [
            "fit.learning_rate=1e-3",
            "fit.limits.std_min=0.1",
            "parallel=fsdp",
            "model.width=96",
            "model.anti_collapse=vicreg",
            "surprise.on_delay_s=20",
            "linear.ranks=[8,16]",
            "licence.ceiling=shadow",
            "gains.agree=0.8",
        ]
    )
    assert (config.fit.learning_rate, config.fit.limits.std_min, config.fit.parallel) == (1e-3, 0.1, Parallel.FSDP)
    assert (config.model.width, config.model.anti_collapse) == (96, AntiCollapse.VICREG)
    assert (config.surprise.on_delay_s, config.linear.ranks) == (20.0, (8, 16))
    assert (config.licence.ceiling, config.gains.agree) == (Level.SHADOW, 0.8)


def test_a_short_name_and_a_full_one_say_the_same():
    assert train_config(["steps=7", "false_raises_per_day=2"]) == train_config(
        ["fit.steps=7", "surprise.false_raises_per_day=2"]
    )


def test_a_preset_is_what_the_model_begins_with():
    assert train_config(["size=plant"]).model == preset("plant")
    larger = train_config(["model.width=512", "size=plant"]).model
    assert (larger.width, larger.latent) == (512, preset("plant").latent)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fit.learning_rat=1", "fit.learning_rat: unknown key; accepted: steps, seconds"),
        ("fit.limits.std=1", "fit.limits.std: unknown key; accepted: collapsed_share"),
        ("model.width=50", "model.width: 50 must be a multiple of model.heads 4"),
        ("model=3", "model: 3 is not accepted; expected a mapping with width"),
        ("batch=1", "fit.batch: 1 is not accepted; expected at least 2"),
        ("calibration_share=2", "calibration_share: 2.0 is not accepted; expected a number between 0 and 1"),
        ("licence.ceiling=king", "licence.ceiling: 'king' is not accepted; expected one of observe"),
        ("seconds=nan", "fit.seconds: nan is not accepted"),
        ("fit.seed=${none}", r"fit.seed=\$\{none\}: .*none"),
        ("fit.seed=???", r"fit.seed=\?\?\?: .*fit.seed"),
        ("+fit.seed=1", "expected KEY=VALUE, without"),
        ("seed=1,2", "several values need --multirun"),
        ("model.heads=0", "model.heads: 0 is not accepted; expected at least 1"),
        ("model.width=-4", "model.width: -4 is not accepted"),
        ("fit.learning_rate=-1", "fit.learning_rate: -1.0 is not accepted; expected at least 0"),
        ("fit.gate_clips=0", "fit.gate_clips: 0 is not accepted; expected at least 2"),
        ("linear.penalties=[]", "linear.penalties"),
        ("threads=-1", "threads: -1 is not accepted"),
        ("surprise.silent=[net]", "surprise.silent: 'net' is not accepted"),
    ],
)
def test_a_wrong_training_setting_is_named(override, message):
    with pytest.raises(ConfigError, match=message):
        train_config([override])


@pytest.mark.parametrize(
    ("override", "other"),
    [
        ("fit.learning_rate=1e-3", True),
        ("model.dropout=0.1", True),
        ("linear.variates=64", True),
        ("licence.least_moves=3", True),
        ("seed=1", True),
        ("steps=5", False),
        ("fit.seconds=5", False),
        ("threads=1", False),
        ("parallel=ddp", False),
    ],
)
def test_a_training_goes_on_only_under_the_settings_that_make_it(override, other):
    assert (decisive(train_config([override])) != decisive(train_config())) is other


def test_settings_are_plain_and_come_back():
    assert plain(train_config())["surprise"]["false_raises_per_day"] == 1.0
    assert plain({"a": float("nan"), "b": (Level.ADVISE, float("inf"))}) == {"a": None, "b": ["advise", None]}
