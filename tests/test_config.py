from pathlib import Path

import pytest

from connectors.kinds import source_of
from connectors.opcua.config import OpcUaConfig
from fusion.daemon.settings import load_daemon_config
from fusion.errors import ConfigError
from fusion.plant_file import load_plant
from fusion.simulator.scenario import load_scenario
from fusion.training.settings import train_config

CONFIGS = Path(__file__).parent.parent / "configs"
DEMO = CONFIGS / "demo.yaml"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda f: f.stem)
def test_every_daemon_configuration_composes_and_builds(file):
    config = load_daemon_config(file)
    plant = load_plant(Path(config.plant))
    sources = [source_of(connector, plant, name=name) for name, connector in config.connectors.items()]
    named = {signal for source in sources for signal in source.signals}
    assert named == {signal.name for signal in plant.signals}


@pytest.mark.parametrize("file", sorted((CONFIGS / "plant").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_plant_loads(file):
    assert load_plant(file).tags


@pytest.mark.parametrize("file", sorted((CONFIGS / "scenario").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_scenario_loads(file):
    assert load_scenario(file).duration_s > 0


def test_overrides_reach_their_place():
    config = load_daemon_config(DEMO, ["publish.port=1999", "connectors.plc.url=opc.tcp://other:4841"])
    assert config.publish.port == 1999
    assert isinstance(config.connectors["plc"], OpcUaConfig)
    assert config.connectors["plc"].url == "opc.tcp://other:4841"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("connectors.camera.urll=x", "connectors.camera.urll: unknown key; accepted: url, signal"),
        ("timelin.lateness_s=1", "timelin: unknown key; accepted: plant, model, connectors, timeline"),
        ("timeline.lateness_s=abc", "timeline.lateness_s.*abc"),
        ("timeline.lateness_s=-1", "timeline.lateness_s: -1.0 must lie between"),
    ],
)
def test_a_wrong_key_or_value_is_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_daemon_config(DEMO, [override])


def test_a_connector_without_a_kind_says_how_to_give_one(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "defaults: [daemon_schema, _self_]\nplant: p.yaml\nmodel: m\nconnectors: {plc: {url: x}}\n"
    )
    with pytest.raises(ConfigError, match="connector/opcua@connectors.plc"):
        load_daemon_config(tmp_path / "bad.yaml")


def test_training_settings_are_typed():
    assert train_config(["seconds=5", "seed=3"]).seed == 3
    with pytest.raises(ConfigError, match="secnds: unknown key; accepted: size, seed, seconds"):
        train_config(["secnds=5"])
    with pytest.raises(ConfigError, match=r"train.size.*demo or plant"):
        train_config(["size=huge"])
