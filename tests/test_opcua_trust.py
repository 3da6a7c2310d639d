import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from asyncua import ua
from asyncua.server.internal_server import InternalServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from connectors.base import Source
from connectors.kinds import source_of
from connectors.opcua.config import OpcUaConfig
from fusion.health import SourceState
from tests.contract.peers import PLANT, OpcUaPeer, collect, supervision, until, values

DAY = timedelta(days=1)


def certificate(folder, name: str, host: str = "127.0.0.1", age: timedelta = DAY, life: timedelta = 2 * DAY):
    """A self-signed certificate and its key; ``age`` before now it began to be valid, for ``life``."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    first = datetime.now(UTC) - age
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:{name}"), x509.DNSName(host)])
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), first, first + life
    )
    signed = builder.add_extension(names, False).sign(key, hashes.SHA256())
    cert_file, key_file = folder / f"{name}.der", folder / f"{name}.key.pem"
    cert_file.write_bytes(signed.public_bytes(serialization.Encoding.DER))
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return str(cert_file), str(key_file)


def secure(peer: OpcUaPeer, ours: tuple[str, str], trusted: str, **options: object) -> Source:
    config = OpcUaConfig(
        url=peer.url,
        namespace_uri=peer.URI,
        signals=["TT101"],
        certificate=ours[0],
        private_key=ours[1],
        server_certificate=trusted,
        application_uri="urn:client",
        supervision=supervision(),
        **options,
    )
    return source_of(config, PLANT)


def test_server_certificates_are_refused_with_what_to_do(tmp_path):
    ours = certificate(tmp_path, "client")
    good = certificate(tmp_path, "server")
    stranger = certificate(tmp_path, "stranger")[0]
    expired = certificate(tmp_path, "expired", age=3 * DAY)[0]
    early = certificate(tmp_path, "early", age=-DAY)[0]
    elsewhere = certificate(tmp_path, "elsewhere", host="plc7.plant")[0]
    old = certificate(tmp_path, "old", age=3 * DAY)
    (tmp_path / "torn.der").write_bytes(b"none")
    cases = [
        (ours, stranger, {}, "the server shows another certificate (CN=server, SHA-256"),
        (ours, expired, {}, "expired.der has expired on"),
        (ours, early, {}, "early.der is not valid before"),
        (ours, elsewhere, {}, "elsewhere.der belongs to plc7.plant and not to 127.0.0.1"),
        (ours, str(tmp_path / "torn.der"), {}, "torn.der holds no certificate"),
        (old, good[0], {}, "opcua.certificate: "),
        (ours, elsewhere, {"server_name": "PLC7.plant"}, "the server shows another certificate (CN=server"),
    ]

    async def scenario() -> None:
        peer = OpcUaPeer(tags=("TT101",))
        peer.certificates = good
        await peer.start()
        right = secure(peer, ours, good[0])
        refused = [(secure(peer, mine, theirs, **options), text) for mine, theirs, options, text in cases]
        try:
            for source in (right, *(source for source, _ in refused)):
                await source.start()
            assert values(await collect(right, values)) == [("TT101", 0.0, 2)]
            assert right.health().message == ""
            for source, text in refused:
                await until(lambda source=source: source.state is SourceState.REFUSED)
                assert text in source.health().message
                assert source.drain() == []
        finally:
            for source in (right, *(source for source, _ in refused)):
                await source.stop()
            await peer.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "no answer in time"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 200, ""),
        (b"\0" * 500, ""),
        (b"", "connection lost"),
    ],
)
def test_a_server_that_is_mute_or_talks_rubbish_gets_a_reason(answer: bytes | None, reason: str):
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if answer is not None:
                writer.write(answer)
                writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = {"url": url, "namespace_uri": "u", "signals": ["TT101"], "insecure": True, "request_timeout_s": 0.3}
        source = source_of(OpcUaConfig(**settings, supervision=supervision()), PLANT)
        await source.start()
        try:
            await until(lambda: source.state is SourceState.DOWN and source.epoch >= 2)
            place, _, said = source.health().message.partition(f"{url}: ")
            assert (place, bool(said.strip())) == ("", True)
            assert reason in said
        finally:
            await source.stop()
            server.close()

    asyncio.run(scenario())


def test_too_many_sessions_are_waited_for_with_a_reason(monkeypatch: pytest.MonkeyPatch):
    original, busy = InternalServer.create_session, [True]

    def create_session(self, *arguments, **more):
        if busy[0]:
            raise ua.uaerrors.BadTooManySessions
        return original(self, *arguments, **more)

    async def scenario() -> None:
        peer = OpcUaPeer(tags=("TT101",))
        await peer.start()
        monkeypatch.setattr(InternalServer, "create_session", create_session)
        settings = {"url": peer.url, "namespace_uri": peer.URI, "signals": ["TT101"], "insecure": True}
        source = source_of(OpcUaConfig(**settings, supervision=supervision()), PLANT)
        await source.start()
        try:
            await until(lambda: source.state is SourceState.DOWN)
            assert "BadTooManySessions" in source.health().message
            assert "end after its session timeout" in source.health().message
            busy[0] = False
            assert values(await collect(source, values)) == [("TT101", 0.0, 2)]
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())
