"""Who may do what: rights at the broker, and secrets that appear nowhere."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest
from mosquitto import USER, Mosquitto, needs_broker, with_passwords
from test_publish import messages_of, online, publisher
from wire_examples import anomaly, until

from fusion.daemon.settings import load_daemon_config
from fusion.errors import BrokerError, ConfigError
from fusion.mqtt.broker import Broker
from fusion.mqtt.client import Client
from fusion.mqtt.connection import Connection

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "demo.yaml"

# --- rights at the broker

FUSION = {f"fusion/lime/v1/{kind}" for kind in ("health", "anomaly", "recommendation", "frame", "preview/camera")}
ASKED = {
    f"fusion/lime/v1/{topic}"
    for topic in (
        "alarm/order",
        "mark/order",
        "mode/order",
        "model/order",
        "recommendation/ack",
        "whatif/request",
        "verifier/order",
    )
}
ACK, START, VERIFIER = (f"fusion/lime/v1/{topic}" for topic in ("recommendation/ack", "verifier/order", "verifier"))
SAID = ASKED | {VERIFIER}
COMMAND, STATUS, TAG = "simulator/lime/command", "simulator/lime/status", "plant/lime/TT101"
TOPICS = FUSION | SAID | {COMMAND, STATUS, TAG, "other", "fusion/lime/v2/health"}
WRITE = {
    "daemon": FUSION | SAID,
    "page": ASKED | {COMMAND},
    "verifier": {ACK, VERIFIER},
    "simulator": {TAG, STATUS},
    "reader": set(),
}
READ = {
    "daemon": ASKED - {START} | {TAG, VERIFIER},
    "page": FUSION | SAID | {STATUS},
    "verifier": {"fusion/lime/v1/health", "fusion/lime/v1/recommendation", ACK, START},
    "simulator": {COMMAND},
    "reader": FUSION | SAID,
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Mosquitto with the rights of deploy/, and one user beside who may do everything."""
    folder = tmp_path_factory.mktemp("guarded")
    rights = folder / "acl"
    rights.write_text((ROOT / "deploy" / "mosquitto" / "acl").read_text() + "\nuser root\ntopic readwrite #\n")
    rights.chmod(0o600)
    for user in (*WRITE, "root"):
        new = () if (folder / "passwords").exists() else ("-c",)
        tool = [shutil.which("mosquitto_passwd"), *new, "-b", str(folder / "passwords"), user, f"pw-{user}"]
        subprocess.run(tool, check=True, capture_output=True)
    lines = ("allow_anonymous false", f"password_file {folder / 'passwords'}", f"acl_file {rights}")
    broker = Mosquitto(folder, lines)
    yield broker
    broker.stop()


def as_user(broker, user):
    return Broker(port=broker.port, protocol="5", username=user, password=f"pw-{user}")


def takes(connection, topic):
    try:
        connection.deliver(topic, b"x", timeout_s=3.0)
    except BrokerError:
        return False
    return True


@needs_broker
@pytest.mark.parametrize("user", WRITE)
def test_each_role_may_write_and_read_what_it_needs_and_nothing_else(guarded, user):
    heard = set()
    listener = Client(as_user(guarded, user), topics=["#"], received=lambda topic, payload, _: heard.add(topic))
    listener.start()
    teller = Connection(as_user(guarded, "root"))
    own = Connection(as_user(guarded, user))
    try:
        listener.reach(), teller.open(), own.open()
        assert {topic for topic in TOPICS if takes(own, topic)} == WRITE[user]
        heard.clear()
        assert all(takes(teller, topic) for topic in sorted(TOPICS))
        until(lambda: heard >= READ[user], f"{user} hears what it may")
        assert heard == READ[user]
    finally:
        listener.close(), own.close(), teller.close()


@needs_broker
def test_nobody_gets_in_without_a_password(guarded):
    nobody = Connection(Broker(port=guarded.port))
    try:
        with pytest.raises(BrokerError, match="ot authorized"):
            nobody.open()
    finally:
        nobody.close()


# --- secrets

SECRET = "hunter2-swordfish"


@pytest.mark.parametrize(
    "text",
    [
        f"publish: {{username: u, password: [{SECRET}]}}",
        f"publish: {{username: u, password: {{a: {SECRET}}}}}",
        f"publish: {{username: u, password: 'a${{{SECRET}}}b'}}",
        f"publish: {{username: u, password: {SECRET}, password_file: x}}",
        f"publish: {{password: {SECRET}}}",
        f"publish: [{{username: u, password: {SECRET}}}]",
        f"publish: 'mqtt://u:{SECRET}@host'",
        f"connectors: {{m: {{kind: mqtt, topics: [], username: u, password: [{SECRET}]}}}}",
        f"connectors: {{m: {{kind: mqtt, topics: {{password: {SECRET}}}}}}}",
        f"connectors: {{m: {{kind: opcua, url: 'opc.tcp://u:{SECRET}@x', signals: [A]}}}}",
        f"connectors: {{m: {{kind: opcua, url: opc.tcp://x, username: u, password: [[{SECRET}]]}}}}",
        f"connectors: {{v: {{kind: video, signal: c, url: 'rtsp://u:{SECRET}@h/x'}}}}",
        f"connectors: {{v: {{kind: video, signal: c, url: rtsp://h/x, username: u, password: {{{SECRET}: 1}}}}}}",
    ],
)
def test_no_error_about_a_configuration_shows_a_secret(tmp_path, text):
    file = tmp_path / "site.yaml"
    file.write_text(f"defaults: [daemon_schema, _self_]\nplant: p.yaml\nmodel: m\n{text}\n")
    with pytest.raises(ConfigError) as refused:
        load_daemon_config(file)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "override",
    [
        f"publish.password=[{SECRET}]",
        f"publish.password={SECRET},b",
        f"publish.password={SECRET}}}{{",
        f"publish.password='{SECRET}",
        f"~publish.password={SECRET}",
        f"publish={{password:{SECRET}}}{{",
        f"publish.password='${{{SECRET}}}'",
    ],
)
def test_no_error_about_an_override_shows_a_secret(override):
    with pytest.raises(ConfigError) as refused:
        load_daemon_config(DEMO, [override])
    assert SECRET not in str(refused.value)


def test_a_number_is_no_password(tmp_path):
    """YAML reads 0123 as 83: what would be sent is not what is written."""
    with pytest.raises(ConfigError, match=r"publish\.password: .not shown. is not accepted; expected a text; a number"):
        load_daemon_config(DEMO, ["publish.username=u", "publish.password=123"])


@needs_broker
@pytest.mark.parametrize("right", [True, False])
def test_neither_log_nor_health_nor_messages_show_a_password(tmp_path, caplog, right):
    caplog.set_level(logging.DEBUG)
    broker = Mosquitto(tmp_path, with_passwords(tmp_path))
    password = (tmp_path / "secret").read_text().strip() if right else SECRET
    broker.login = ("-u", USER, "-P", "right")
    try:
        with publisher(broker.port, username=USER, password=password) as out:
            if right:
                online(out)
                out.publish(anomaly())
                said = str(messages_of(broker.read("fusion/kiln/v1/health")))
            else:
                until(lambda: "ot authorized" in out.message, "refused")
                said = ""
            said += repr(out.delivery) + out.message + out.trouble + repr(out._config)
    finally:
        broker.stop()
    assert f"'{password}'" not in said
    assert SECRET not in said + caplog.text
