"""A real broker for tests: mosquitto on a free loopback port, plain or with TLS and a password."""

import shutil
import subprocess

import pytest

from tests.wire_examples import free_port, listening, until

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
READER = shutil.which("mosquitto_sub")
needs_broker = pytest.mark.skipif(not (MOSQUITTO and READER), reason="mosquitto and mosquitto_sub are not installed")
needs_tls = pytest.mark.skipif(
    not (MOSQUITTO and READER and shutil.which("openssl")), reason="mosquitto, mosquitto_sub or openssl is missing"
)
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
USER, PASSWORD = "fusion", "right"


class Mosquitto:
    """The broker; ``lines`` are added to its configuration, ``login`` are options of its command-line clients."""

    def __init__(self, folder, lines=("allow_anonymous true",), login=()):
        self.port = free_port()
        self.login = login
        self._file = folder / "mosquitto.conf"
        settings = [f"listener {self.port} 127.0.0.1", "persistence false", "user root", *lines]
        self._file.write_text("\n".join(settings) + "\n")
        self.start()

    def start(self):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._file)], **quiet)
        until(lambda: listening(self.port), "mosquitto listens")

    def signal(self, number):
        self._process.send_signal(number)

    def stop(self):
        self._process.terminate()
        self._process.wait(5)

    def write(self, topic, payload):
        command = [shutil.which("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(self.port), *self.login]
        subprocess.run([*command, "-q", "1", "-t", topic, "-m", payload], check=True, timeout=5)

    def read(self, topic, count=1, *options, timeout_s=5):
        """Start Debian's mosquitto_sub and wait for its subscription; it ends after `count` messages."""
        limits = ["-q", "1", "-C", str(count), "-W", str(timeout_s)]
        command = ["stdbuf", "-oL", READER, "-d", "-h", "127.0.0.1", "-p", str(self.port), *self.login]
        form = options or ("-v",)
        reader = subprocess.Popen(
            [*command, "-t", topic, *limits, *form], stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
        )
        while not (line := reader.stdout.readline()).startswith("Subscribed"):
            assert line, "mosquitto_sub ended early"
        return reader


def with_passwords(folder):
    """Lines of a broker that lets in USER with PASSWORD alone; ``secret`` in the folder holds the password."""
    passwords = folder / "passwords"
    tool = shutil.which("mosquitto_passwd")
    subprocess.run([tool, "-c", "-b", str(passwords), USER, PASSWORD], check=True, capture_output=True)
    (folder / "secret").write_text(PASSWORD + "\n")
    return ("allow_anonymous false", f"password_file {passwords}")


def with_tls(folder):
    """Lines of a broker whose certificate was signed by an authority of our own: ``ca.pem`` in the folder."""
    pki = ["req", "-x509", *CURVE, "-days", "1", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority"]
    openssl(folder, *pki)
    openssl(folder, "req", *CURVE, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "names"]
    openssl(folder, "x509", "-req", "-in", "server.csr", "-out", "server.pem", *signer)
    return (f"certfile {folder / 'server.pem'}", f"keyfile {folder / 'server.key'}")


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def secured(folder):
    """A broker with TLS and a password."""
    lines = (*with_tls(folder), *with_passwords(folder))
    return Mosquitto(folder, lines, ("--cafile", str(folder / "ca.pem"), "-u", USER, "-P", PASSWORD))
