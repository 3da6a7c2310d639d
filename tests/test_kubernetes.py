"""What is applied to a cluster is valid, complete, without rights, and fits the program that it starts."""

import asyncio
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path, PurePosixPath

import kubernetes_validate
import pytest
import yaml
from scripted_daemon import daemon
from test_status import get
from wire_examples import free_port

from connectors.kinds import made_sources
from fusion.cli import build_parser, main
from fusion.daemon.http import HttpConfig, serving
from fusion.daemon.settings import load_daemon_config
from fusion.plant_file import load_plant
from fusion.training.settings import train_config

DEPLOY = Path(__file__).parents[1] / "deploy"
PLACE = DEPLOY / "kubernetes"
AREAS = sorted(folder.name for folder in (PLACE / "areas").iterdir())
VERSIONS = ("1.30", "1.34")
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(not KUBECTL, reason="kubectl is not installed")
READ_ONLY = {"/site", "/secrets"}


@cache
def rendered(place="."):
    """What `kubectl apply -k` would send, by kind and name."""
    done = subprocess.run([KUBECTL, "kustomize", str(PLACE / place)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}


def written():
    """What stands in the files themselves, for machines without kubectl."""
    files = [file for file in PLACE.rglob("*.yaml") if file.parent.name in ("base", "training")]
    found = [(file.name, one) for file in sorted(files) for one in yaml.safe_load_all(file.read_text())]
    return [(name, one) for name, one in found if one["kind"] != "Kustomization"]


def pods(resources):
    """The pod of everything that makes one."""
    for (kind, name), one in resources.items():
        if kind in ("StatefulSet", "Deployment", "Job"):
            yield f"{kind}/{name}", one["spec"]["template"], one
        if kind == "CronJob":
            yield f"{kind}/{name}", one["spec"]["jobTemplate"]["spec"]["template"], one


def sent():
    return rendered() | rendered("training")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_is_what_kubernetes_takes(version):
    assert len(written()) >= 10
    for name, one in written():
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{name}: {error.message} at {list(error.path)}")


@needs_kubectl
@pytest.mark.parametrize("version", VERSIONS)
def test_everything_that_is_sent_is_what_kubernetes_takes(version):
    for one in sent().values():
        kubernetes_validate.validate(one, version, strict=True)


@needs_kubectl
def test_every_area_has_its_own_of_everything():
    kinds = {area: sorted(kind for kind, name in rendered() if re.search(rf"-{area}\b", name)) for area in AREAS}
    assert len(kinds[AREAS[0]]) == 10
    assert all(found == kinds[AREAS[0]] for found in kinds.values())
    assert sum(map(len, kinds.values())) == len(rendered())
    for (kind, name), one in rendered().items():
        area = next(area for area in AREAS if re.search(rf"-{area}\b", name))
        selected = one["spec"].get("selector") or one["spec"].get("podSelector") if "spec" in one else None
        if selected and kind != "PersistentVolumeClaim":
            assert selected.get("matchLabels", selected)["fusion/area"] == area, (kind, name)


@needs_kubectl
def test_what_a_pod_mounts_is_there_or_told_of():
    told = (DEPLOY / "README.md").read_text()
    for name, pod, made in pods(sent()):
        claimed = {claim["metadata"]["name"] for claim in made["spec"].get("volumeClaimTemplates", [])}
        for volume in pod["spec"]["volumes"]:
            if "configMap" in volume:
                data = sent()["ConfigMap", volume["configMap"]["name"]]["data"]
                assert set(data) == {"site.yaml", "plant.yaml"}
            elif "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in sent(), name
            elif "secret" in volume:
                assert f"kubectl -n fusion create secret generic {volume['secret']['secretName']} " in told, name
            else:
                assert volume["emptyDir"], name
            claimed.add(volume["name"])
        assert {mount["name"] for mount in _container(pod)["volumeMounts"]} == claimed, name


@needs_kubectl
def test_pods_have_no_rights_and_write_where_something_is_mounted():
    for name, pod, _ in pods(rendered()):
        spec, container = pod["spec"], _container(pod)
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"].items() >= {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000}.items()
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
        assert {place for place, read_only in mounts.items() if read_only} == READ_ONLY & set(mounts), name
        environment = {one["name"]: one["value"] for one in container["env"]}
        assert environment["HOME"] in mounts
        assert not mounts[environment["HOME"]]


@needs_kubectl
def test_services_and_probes_meet_a_port_that_the_program_serves():
    paths = set()
    for name, pod, _ in pods(rendered()):
        container, labels = _container(pod), pod["metadata"]["labels"]
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        probes = [
            container[probe] for probe in ("startupProbe", "livenessProbe", "readinessProbe") if probe in container
        ]
        asked = [probe.get("httpGet") or probe["tcpSocket"] for probe in probes]
        assert {ports[one["port"]] for one in asked} == set(ports.values()), name
        paths |= {one["path"] for one in asked if "path" in one}
        for (kind, _), service in rendered().items():
            if kind == "Service" and labels.items() >= service["spec"]["selector"].items():
                assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports), name
        said = " ".join(container["args"])
        for port in ports.values():
            assert re.search(rf"(http\.port=|--port ){port}\b", said), name
    assert paths == {"/livez", "/readyz"}


def test_the_paths_of_the_probes_are_served(tmp_path):
    paths = {
        container[probe]["httpGet"]["path"]
        for _, one in written()
        if one["kind"] == "StatefulSet"
        for container in [_container(one["spec"]["template"])]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    made, _, publisher = daemon(tmp_path, free_port(), lambda engine, t_ns: [])
    port = free_port()

    async def asked():
        async with serving(HttpConfig(port=port), made._status.answer):
            return {path: (await asyncio.to_thread(get, port, path))[0] for path in sorted(paths)}

    try:
        assert asyncio.run(asked()) == {"/livez": 200, "/readyz": 503}
    finally:
        publisher.close()


def arguments(area, kind):
    """Command line of the pod of a kind in an area."""
    return next(_container(pod)["args"] for name, pod, _ in pods(rendered()) if name == f"{kind}-{area}")


def _container(pod):
    (container,) = pod["spec"]["containers"]
    return container


@needs_kubectl
@pytest.mark.parametrize("area", AREAS)
def test_the_daemon_of_an_area_takes_its_configuration(area, tmp_path):
    for name in ("site.yaml", "plant.yaml"):
        text = (PLACE / "areas" / area / name).read_text()
        (tmp_path / name).write_text(text.replace("/secrets/", f"{tmp_path}/secrets/"))
    named = set(re.findall(r"/secrets/([\w.-]+)", (PLACE / "areas" / area / "site.yaml").read_text()))
    main(["certs", str(tmp_path / "secrets"), "--authority", "plant", "--server", "broker.plant"])
    for name in named - {"ca.pem"}:
        (tmp_path / "secrets" / name).write_text("x\n")
    assert named <= set(_keys("fusion-daemon")), "the page says with which files the secret is made"
    given = build_parser().parse_args(arguments(area, "StatefulSet/daemon"))
    config = load_daemon_config(tmp_path / "site.yaml", given.overrides)
    plant = load_plant(Path(config.plant))
    assert plant.name == area
    sources = made_sources(config.connectors, plant)
    assert sorted(name for source in sources for name in source.signals) == sorted(s.name for s in plant.signals)
    for store in (config.state, config.publish.outbox, config.record.folder, config.learn.models):
        assert PurePosixPath(store).parts[1] in ("state", "records"), store
    shared = [topic for one in config.connectors.values() for topic in getattr(one, "topics", [])]
    assert shared
    assert all(topic.topic.startswith(f"$share/{area}/") for topic in shared)


@needs_kubectl
@pytest.mark.parametrize("area", AREAS)
def test_the_page_and_the_learning_of_an_area_are_commands_of_ours(area):
    page = build_parser().parse_args(arguments(area, "Deployment/page"))
    files = [page.users, page.https_certificate, page.https_key, *re.findall(r"/secrets/\S+", str(page))]
    assert {PurePosixPath(str(file)).name.strip("',)\"") for file in files} <= set(_keys("fusion-page"))
    learn = build_parser().parse_args(arguments(area, "CronJob/learn"))
    train_config(learn.overrides)
    daemon = arguments(area, "StatefulSet/daemon")
    assert f"record.folder={learn.records}" in daemon
    assert f"learn.models={learn.models}" in daemon


@needs_kubectl
def test_training_asks_for_a_gpu():
    found = {name: _container(pod)["resources"]["limits"].get("nvidia.com/gpu") for name, pod, _ in pods(sent())}
    trains = {name: gpus for name, gpus in found.items() if gpus}
    assert trains == {"CronJob/learn-kiln": 1, "CronJob/learn-mill": 1, "Job/fusion-train": 1}


def _keys(secret):
    """The keys with which the page makes a secret."""
    text = (DEPLOY / "README.md").read_text().replace("\\\n", " ")
    command = re.search(rf"kubectl -n fusion create secret generic {secret} (.*)$", text, re.MULTILINE)[1]
    return [part.partition("=")[2].partition("=")[0] for part in re.findall(r"--from-file=\S+", command)]
