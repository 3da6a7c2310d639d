"""What is installed is named, and what is known against it is asked of a service, or said not to have been."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from wire_examples import free_port

ROOT = Path(__file__).parents[1]
LOCK = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
WEAK = {
    "id": "PYSEC-2026-1",
    "summary": "weak",
    "affected": [
        {
            "package": {"name": "msgspec", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def recipe(target, **variables):
    """What `make` would run for a target, once everything is set up."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    command = [
        "make",
        "--no-print-directory",
        "--dry-run",
        "--old-file=.venv/.ready",
        target,
        f"PY={sys.executable}",
        *settings,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout


def test_the_sbom_names_every_distribution_of_the_lock(tmp_path):
    file = tmp_path / "sbom.json"
    subprocess.run(["sh", "-ec", recipe("sbom", SBOM=file)], cwd=ROOT, check=True, timeout=240)
    sbom = json.loads(file.read_text())
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["name"]) == ("CycloneDX", "fusion-world-model")
    named = {plain(one["name"]): one["version"].partition("+")[0] for one in sbom["components"]}
    installed = {plain(one.name) for one in metadata.distributions()}
    locked = {plain(name): version for name, version in LOCK.items() if plain(name) in installed}
    assert len(locked) > 100
    assert {name: named.get(name) for name in locked} == locked
    without = [one["name"] for one in sbom["components"] if plain(one["name"]) in locked and not one.get("purl")]
    assert without == []


class Advisories(BaseHTTPRequestHandler):
    """A service in the manner of OSV, which knows of what its server holds against a name."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.server.known.get(asked["package"]["name"], [])
        body = json.dumps({"vulns": known} if known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture
def service():
    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        server.known = {}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def audit(port, cache, *options):
    url = f"http://127.0.0.1:{port}/v1/query"
    given = " ".join(["--vulnerability-service osv", f"--osv-url {url}", f"--cache-dir {cache}", *options])
    command = ["sh", "-ec", recipe("audit", AUDIT=given)]
    local = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.run(command, cwd=ROOT, env=local, capture_output=True, text=True, timeout=120)


def test_nothing_known_of_what_is_locked_is_said_with_its_count(service, tmp_path):
    done = audit(service.server_port, tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{len(LOCK)} distributions, 0 with known vulnerabilities\n")


def test_what_is_known_is_named_with_what_mends_it(service, tmp_path):
    service.known["msgspec"] = [WEAK]
    for options in ((), ("--if-reachable",)):
        done = audit(service.server_port, tmp_path, *options)
        assert done.returncode == 1
        assert f"msgspec {LOCK['msgspec']}: PYSEC-2026-1, mended by 99.1\n" in done.stdout
    assert audit(service.server_port, tmp_path, "--ignore-vuln PYSEC-2026-1").returncode == 0


@pytest.mark.parametrize(("options", "code"), [((), 3), (("--if-reachable",), 0)])
def test_a_service_that_cannot_be_asked_is_no_clean_bill(tmp_path, options, code):
    done = audit(free_port(), tmp_path, *options)
    assert done.returncode == code
    assert done.stdout.startswith("NOT CHECKED for known vulnerabilities: ")
    assert "refused" in done.stdout


def test_a_name_that_the_service_does_not_know_is_not_clean(tmp_path):
    """As a mirror of packages answers that holds no advisories."""
    module = ROOT / ".ci" / "audit.py"
    said = {
        "dependencies": [{"name": "torch", "skip_reason": "not found"}, {"name": "av", "version": "1", "vulns": []}]
    }
    fake = tmp_path / "pip_audit.py"
    fake.write_text(
        "import pathlib, sys\n"
        f"pathlib.Path(sys.argv[sys.argv.index('--output') + 1]).write_text({json.dumps(said)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, str(module)], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (
        3,
        "NOT CHECKED for known vulnerabilities: 1 of 2 distributions (torch)\n",
    )
