"""What is deployed fits the program: units, rights, configuration, and every figure that is asked for."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from mosquitto import MOSQUITTO, needs_tls, with_passwords, with_tls
from wire_examples import free_port, listening, until

from fusion.cli import build_parser
from fusion.daemon.metrics import HELP
from fusion.daemon.settings import load_daemon_config
from fusion.dashboard.app import DashboardConfig
from fusion.plant_file import load_plant
from fusion.verifier.settings import checked_loops, load_verifier_config

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")


def commands():
    """Every command line of ours in units and compose file."""
    for unit in UNITS:
        text = unit.read_text().replace("\\\n", " ")
        yield re.search(r"^ExecStart=\S+ (.*)$", text, re.MULTILINE)[1].replace("%d", "/run/x").split()
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    yield from (services[name]["command"] for name in ("daemon", "page"))


def test_the_commands_of_units_and_containers_are_accepted(tmp_path):
    parsed = [build_parser().parse_args(command) for command in commands()]
    assert len(parsed) == 5
    for given in parsed:
        if hasattr(given, "users"):
            DashboardConfig(
                host=given.host, users=given.users, certificate=given.https_certificate, key=given.https_key
            )
        elif given.verb.name == "verify":
            told = (DEPLOY.parent / "docs" / "control.md").read_text()
            told = told[told.index("plant: plant.yaml") :].split("```")[0]
            (tmp_path / "verifier.yaml").write_text(told)
            config = load_verifier_config(tmp_path / "verifier.yaml", given.overrides)
            assert checked_loops(config, load_plant(DEPLOY.parent / "configs" / "plant" / "lime.yaml"))
        else:
            load_daemon_config(DEPLOY / "site.yaml", given.overrides)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_valid_and_leave_little_open(unit, tmp_path):
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"/opt/fusion/\S+", "/bin/true", unit.read_text()))
    done = subprocess.run([ANALYZE, "verify", str(copy)], capture_output=True, text=True, timeout=20)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])
    said = subprocess.run(
        [ANALYZE, "security", "--offline=yes", str(copy)], capture_output=True, text=True, timeout=20
    ).stdout
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert exposure, said
    assert float(exposure[1]) < 2.0


def test_every_unit_is_watched_and_started_again():
    for unit in UNITS:
        text = unit.read_text()
        for line in ("Type=notify", "WatchdogSec=", "Restart=always", "DynamicUser=yes", "ProtectSystem=strict"):
            assert f"\n{line}" in text, (unit.name, line)


@needs_tls
def test_the_broker_takes_its_configuration(tmp_path):
    port = free_port()
    (tmp_path / "tls").mkdir()
    with_tls(tmp_path / "tls")
    with_passwords(tmp_path)
    shutil.copy(DEPLOY / "mosquitto" / "acl", tmp_path / "acl")
    (tmp_path / "acl").chmod(0o600)
    text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text()
    text = text.replace("/mosquitto/config", str(tmp_path)).replace("/mosquitto/data", str(tmp_path))
    file = tmp_path / "mosquitto.conf"
    file.write_text(text.replace("listener 8883", f"listener {port} 127.0.0.1") + "user root\n")
    with subprocess.Popen([MOSQUITTO, "-c", str(file)], stdout=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: listening(port) or process.poll() is not None, "mosquitto", 5.0)
            assert process.poll() is None, process.stdout.read()
        finally:
            process.terminate()


def test_rules_and_dashboard_ask_for_figures_that_there_are():
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"][0]["rules"]
    panels = json.loads((DEPLOY / "grafana" / "fusion.json").read_text())["panels"]
    asked = [rule["expr"] for rule in rules] + [t["expr"] for panel in panels for t in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"\b(?:fusion|process)_\w+", expression)}
    assert names - set(HELP) == set()
    assert {yaml.safe_load((DEPLOY / "grafana" / "datasources.yaml").read_text())["datasources"][0]["uid"]} == {
        panel["datasource"]["uid"] for panel in panels
    }


def test_the_compose_file_names_files_that_are_there_or_that_the_page_tells_of():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    told = (DEPLOY / "README.md").read_text()
    mounted = [v.partition(":")[0] for s in compose["services"].values() for v in s.get("volumes", [])]
    mounted += [secret["file"] for secret in compose["secrets"].values()]
    for name in (name.removeprefix("./") for name in mounted if name.startswith("./")):
        first = name.partition("/")[0]
        assert (DEPLOY / name).exists() or f"`{first}/`" in told, name
    named = {m.partition(":")[0] for m in mounted if not m.startswith((".", "/"))}
    assert named <= set(compose["volumes"])
    daemon, page = (" ".join(compose["services"][name]["command"]) for name in ("daemon", "page"))
    for kept, option in (("record.folder=", "--recordings "), ("learn.models=", "--models "), ("state=", "--state ")):
        place = daemon.split(f" {kept}")[1].split()[0].rstrip(",")
        assert f"{option}{place}" in page
        assert f"{place.split('/')[1]}:/{place.split('/')[1]}:ro" in compose["services"]["page"]["volumes"]
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in compose["services"].values())
