"""Certificates that `fusion certs` makes, in front of real servers; and their end, said in time."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from mosquitto import Mosquitto, needs_broker
from test_connectors_opcua import build, collect, values
from test_publish import Idle, messages_of, online, publisher
from wire_examples import KILN, anomaly, until

from fusion.certificates import Workshop, read_certificate
from fusion.cli import main
from fusion.daemon.certificates import CertificateWatch
from fusion.daemon.service import Daemon
from fusion.errors import ConfigError
from fusion.health import SourceState
from fusion.mqtt.broker import Broker
from fusion.mqtt.client import ClientState
from fusion.timeline.timeline import Timeline
from tests.contract.peers import OpcUaPeer


@needs_broker
def test_a_broker_and_its_clients_know_each_other_by_certificates_made_here(tmp_path, capsys):
    made = tmp_path / "tls"
    given = ["--authority", "plant", "--server", "127.0.0.1", "localhost", "--client", "daemon", "page"]
    assert main(["certs", str(made), *given]) == 0
    assert "server.pem: CN=127.0.0.1; 127.0.0.1, localhost; until" in capsys.readouterr().out
    assert {file.name for file in made.iterdir() if file.stat().st_mode & 0o077 == 0} == {
        f"{name}.key" for name in ("ca", "server", "daemon", "page")
    }
    assert main(["certs", str(tmp_path / "foreign"), "--authority", "other", "--client", "daemon"]) == 0
    lines = (f"cafile {made}/ca.pem", f"certfile {made}/server.pem", f"keyfile {made}/server.key")
    broker = Mosquitto(tmp_path, (*lines, "require_certificate true", "use_identity_as_username true"))
    broker.login = ("--cafile", f"{made}/ca.pem", "--cert", f"{made}/page.pem", "--key", f"{made}/page.key")
    files = {"tls": True, "tls_ca": f"{made}/ca.pem"}
    try:
        with publisher(broker.port, tls_certificate=f"{made}/daemon.pem", tls_key=f"{made}/daemon.key", **files) as out:
            online(out)
            reader = broker.read("fusion/kiln/v1/anomaly")
            out.publish(anomaly("by-certificate"))
            ((_, message),) = messages_of(reader)
            assert message["id"] == "by-certificate"
        foreign = tmp_path / "foreign"
        with publisher(
            broker.port, tls_certificate=f"{foreign}/daemon.pem", tls_key=f"{foreign}/daemon.key", **files
        ) as out:
            until(lambda: out.state is ClientState.DOWN, "not let in")
    finally:
        broker.stop()


def test_an_opc_ua_client_and_server_trust_certificates_made_here(tmp_path):
    for side in ("client", "server"):
        Workshop(tmp_path / side, 30).opcua(f"urn:{side}", ["127.0.0.1", "plant.example"])
    client, server = (tmp_path / side for side in ("client", "server"))
    assert read_certificate(client / "opcua.der").names == ("urn:client", "127.0.0.1", "plant.example")

    async def scenario():
        peer = OpcUaPeer()
        peer.certificates = (str(server / "opcua.der"), str(server / "opcua.key.pem"))
        await peer.start()
        source = build(
            peer,
            insecure=False,
            certificate=str(client / "opcua.der"),
            private_key=str(client / "opcua.key.pem"),
            server_certificate=str(server / "opcua.der"),
            application_uri="urn:client",
        )
        await source.start()
        try:
            assert values(await collect(source, lambda items: len(values(items)) >= 2))
            assert source.state is SourceState.LIVE
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


def test_a_key_that_asks_for_a_passphrase_is_refused_and_nobody_is_asked(tmp_path):
    workshop = Workshop(tmp_path, 30)
    workshop.authority("plant")
    workshop.client("daemon")
    key = load_pem_private_key((tmp_path / "daemon.key").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    (tmp_path / "locked.key").write_bytes(locked)
    settings = Broker(tls=True, tls_certificate=f"{tmp_path}/daemon.pem", tls_key=f"{tmp_path}/locked.key")
    with pytest.raises(ConfigError, match=r"tls_\*: certificate or key cannot be used"):
        settings.check()


def test_what_is_there_is_not_replaced_and_what_cannot_be_is_said(tmp_path, capsys):
    assert main(["certs", str(tmp_path), "--server", "a"]) == 2
    assert "make one with --authority" in capsys.readouterr().err
    assert main(["certs", str(tmp_path), "--authority", "plant"]) == 0
    before = (tmp_path / "ca.pem").read_bytes()
    assert main(["certs", str(tmp_path), "--authority", "plant"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "ca.pem").read_bytes() == before
    assert main(["certs", str(tmp_path), "--client", ""]) == 2
    assert main(["certs", str(tmp_path), "--days", "0"]) == 2
    (tmp_path / "x.pem").write_text("-----BEGIN NOTHING-----")
    with pytest.raises(ConfigError, match=r"x\.pem: no certificate that can be read"):
        read_certificate(tmp_path / "x.pem")


@pytest.mark.parametrize(("days", "flags", "trouble"), [(400, 0, 0), (20, 1, 0), (-0.01, 1, 1)])
def test_health_says_that_a_certificate_ends_before_it_does(tmp_path, days, flags, trouble):
    Workshop(tmp_path, days).authority("plant")
    settings = Broker(tls=True, tls_ca=str(tmp_path / "ca.pem"), tls_certificate="gone.pem", tls_key="gone.key")
    watch = CertificateWatch({"publish": settings, "connectors.plc": object()})
    assert len(watch.flags) == flags
    assert bool(watch.trouble) is bool(trouble)
    found = read_certificate(tmp_path / "ca.pem")
    assert abs(found.days_left(datetime.now(UTC)) - days) < 0.1
    assert found.until < datetime.now(UTC) + timedelta(days=401)

    class Outlet:
        trouble, flags = "", ()

    said = Daemon([], Timeline(KILN), Idle(), Outlet(), certificates=watch).health("online")
    assert [flag for flag in said.flags if flag.startswith("certificate:publish.tls_ca (")] == list(watch.flags)
