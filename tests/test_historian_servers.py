import asyncio
import math
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from asyncua import Server, ua
from asyncua.server.history import HistoryDict
from asyncua.ua.uaerrors import BadContinuationPointInvalid, BadServerHalted, BadUserAccessDenied

from connectors.historian.opcua import OpcUaHistoryReader, _shortest
from connectors.historian.sql import default_query
from fusion.errors import ConfigError, HistorianError
from fusion.importing.importer import ImportConfig, import_files
from tests import historian_files as files
from tests.contract.peers import free_port
from tests.test_historian_formats import bad_rows
from tests.test_importing import assert_the_hour, summary, table_of

URI = "urn:historian"


def ignition_database(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE sqlth_te (id INTEGER PRIMARY KEY, tagpath TEXT, datatype INTEGER)")
        database.execute(
            "CREATE TABLE sqlt_data_1_2024_05 (tagid INTEGER, intvalue INTEGER, floatvalue REAL, stringvalue TEXT, "
            "datevalue TEXT, dataintegrity INTEGER, t_stamp INTEGER)"
        )
        ids = {tag: i for i, tag in enumerate(files.TAGS, 1)}
        database.executemany("INSERT INTO sqlth_te VALUES (?, ?, 1)", [(i, tag) for tag, i in ids.items()])
        database.executemany(
            "INSERT INTO sqlt_data_1_2024_05 VALUES (?, NULL, ?, NULL, NULL, ?, ?)",
            [(ids[tag], v, 0 if i == 9 else 192, int(t.timestamp() * 1000)) for tag, i, t, v in files.rows()],
        )


def test_ignition_in_sqlite_without_a_query(tmp_path):
    ignition_database(tmp_path / "ignition.db")
    place = import_files([f"sqlite:///{tmp_path}/ignition.db"], tmp_path / "site")
    assert place.name == "ignition"
    assert_the_hour(place)
    assert bad_rows(place) == [9]


def test_a_query_in_sqlite_and_what_is_wrong_with_others(tmp_path):
    ignition_database(tmp_path / "ignition.db")
    uri = f"sqlite:///{tmp_path}/ignition.db"
    query = "SELECT tagid AS tag, t_stamp AS time, floatvalue AS value FROM sqlt_data_1_2024_05 WHERE tagid < 3"
    place = import_files([uri], tmp_path / "site", ImportConfig(query=query))
    assert set(table_of(place)["signal"]) == {"1", "2"}
    with pytest.raises(HistorianError, match="no such column: absent"):
        import_files([uri], tmp_path / "site", ImportConfig(query="SELECT absent FROM sqlth_te", name="x"))
    with pytest.raises(HistorianError, match="readonly"):
        import_files([uri], tmp_path / "site", ImportConfig(query="DELETE FROM sqlth_te", name="x"))
    with pytest.raises(HistorianError, match="no such database file"):
        import_files(["sqlite:///nowhere.db"], tmp_path / "site")


def test_tables_that_are_not_known_are_named():
    assert default_query({"a": ["id"], "h": ["tag", "ts", "value"]}, "db") == 'SELECT * FROM "h"'
    with pytest.raises(ConfigError, match="found 0 among: a, b"):
        default_query({"a": ["id"], "b": ["x"]}, "db")


# --- PostgreSQL, where its server is installed


def postgres_binary(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="module")
def postgres():
    """URI of a fresh server with a password; as root it runs as the user `postgres`, as the server demands."""
    initdb, server = postgres_binary("initdb"), postgres_binary("postgres")
    if initdb is None or server is None or shutil.which("psql") is None:
        pytest.skip("PostgreSQL is not installed; on Debian: postgresql")
    root = os.geteuid() == 0
    if root and subprocess.run(["id", "postgres"], capture_output=True).returncode:
        pytest.skip("PostgreSQL refuses to run as root and there is no user `postgres`")
    folder, port = Path(tempfile.mkdtemp(prefix="fusion-pg-")), free_port()
    (folder / "password").write_text("s3cr:t\n")
    if root:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
    as_user = ["runuser", "-u", "postgres", "--"] if root else []
    made = [initdb, "-D", folder / "data", "-U", "fusion", "-A", "scram-sha-256", f"--pwfile={folder}/password", "-N"]
    process = None
    try:
        subprocess.run([*as_user, *map(str, made)], check=True, capture_output=True, cwd=folder)
        process = subprocess.Popen(
            [*as_user, server, "-D", str(folder / "data"), "-p", str(port), "-k", str(folder), "-F"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        uri = f"postgresql://fusion:s3cr%3At@127.0.0.1:{port}/postgres"
        for _ in range(100):
            if sql(uri, "SELECT 1").returncode == 0:
                break
            time.sleep(0.1)
        yield uri
    finally:
        if process is not None:
            process.terminate()
            process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def sql(uri: str, text: str, stdin: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(["psql", "-X", "-q", "-d", uri, "-c", text], input=stdin, capture_output=True, text=True)


def test_postgresql_by_its_only_table_and_by_a_query(tmp_path, postgres):
    made = sql(postgres, "CREATE TABLE history (tag text, ts timestamptz, value double precision, quality integer)")
    assert made.returncode == 0, made.stderr
    lines = "".join(f"{tag},{t.isoformat()},{v},{0 if i == 9 else 192}\n" for tag, i, t, v in files.rows())
    assert sql(postgres, "COPY history FROM STDIN WITH (FORMAT csv)", lines).returncode == 0
    place = import_files([postgres], tmp_path / "site", ImportConfig(name="pg"))
    assert_the_hour(place)
    assert bad_rows(place) == [9]
    assert "s3cr" not in (place / "import.json").read_text()
    columns = ", ".join(f"max(value) FILTER (WHERE tag = '{tag}') AS \"{tag}\"" for tag in ("TT101", "FT101"))
    query = f"SELECT ts AS time, {columns} FROM history GROUP BY ts ORDER BY ts;"
    assert_the_hour(
        import_files([postgres], tmp_path / "site", ImportConfig(name="wide", query=query)), ("TT101", "FT101")
    )
    assert summary(tmp_path / "site" / "imports" / "wide")["files"][0]["format"] == "wide CSV"


def test_postgresql_refusals_are_one_sentence_without_the_password(tmp_path, postgres):
    with pytest.raises(HistorianError, match="syntax error") as error:
        import_files([postgres], tmp_path / "site", ImportConfig(query="SELEC 1"))
    assert "s3cr" not in str(error.value)
    wrong = postgres.replace("s3cr%3At", "wrong")
    with pytest.raises(HistorianError, match="password authentication failed"):
        import_files([wrong], tmp_path / "site", ImportConfig(query="SELECT 1"))
    with pytest.raises(HistorianError, match="Connection refused"):
        import_files(["postgresql://127.0.0.1:1/x"], tmp_path / "site", ImportConfig(query="SELECT 1"))


# --- OPC UA historical access


async def historian(port: int, stop: asyncio.Event, ready: asyncio.Event) -> None:
    """A real server that keeps a history in memory: the hour of two tags, with states of quality."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(URI)
    line = await server.nodes.objects.add_object(ua.NodeId("line", index), ua.QualifiedName("line", index))
    async with server:
        for tag in ("TT101", "FT101"):
            node = await line.add_variable(ua.NodeId(tag, index), ua.QualifiedName(tag, index), 0.0)
            await server.historize_node_data_change(node, period=None, count=0)
            for name, i, t, v in files.rows():
                if name == tag:
                    status = {9: 0x80340000, 10: 0x40000000}.get(i, 0)
                    value = ua.DataValue(ua.Variant(v), ua.StatusCode(status), SourceTimestamp=t, ServerTimestamp=t)
                    await server.iserver.history_manager.storage.save_node_value(node.nodeid, value)
        await line.add_variable(ua.NodeId("plain", index), ua.QualifiedName("plain", index), 1.0)
        ready.set()
        await stop.wait()


def with_historian(work) -> None:
    async def scenario() -> None:
        port, stop, ready = free_port(), asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(historian(port, stop, ready))
        try:
            await asyncio.wait_for(ready.wait(), 20)
            await asyncio.to_thread(work, f"opc.tcp://127.0.0.1:{port}")
        finally:
            stop.set()
            await serving

    asyncio.run(scenario())


def test_opc_ua_history_of_everything_archived_and_of_named_nodes(tmp_path, monkeypatch):
    monkeypatch.setattr("connectors.historian.opcua.VALUES_AT_ONCE", 100)

    def work(url: str) -> None:
        end = "2024-05-13T06:59:55Z"
        place = import_files([url], tmp_path / "site", ImportConfig(end=end, name="all"))
        assert_the_hour(place, ("TT101", "FT101"))
        assert bad_rows(place) == [9]
        assert (table_of(place)["quality"] == 1).sum() == 2
        query = f"T=nsu={URI};s=TT101"
        settings = ImportConfig(query=query, start="2024-05-13T06:30:00Z", end=end, name="one", plant=None)
        part = import_files([url], tmp_path / "other", settings)
        assert set(table_of(part)["signal"]) == {"T"}
        assert len(table_of(part)) == files.ROWS // 2
        with pytest.raises(HistorianError, match="'urn:other' is not served"):
            import_files([url], tmp_path / "other", ImportConfig(query="nsu=urn:other;s=TT101", name="x"))

    with_historian(work)


def test_opc_ua_history_that_cannot_be_had(tmp_path):
    with pytest.raises(HistorianError, match="127.0.0.1:1: "):
        import_files(["opc.tcp://127.0.0.1:1"], tmp_path / "site")
    with pytest.raises(ConfigError, match="--from: 'yesterday' is no time"):
        import_files(["opc.tcp://127.0.0.1:1"], tmp_path / "site", ImportConfig(start="yesterday"))


async def capped_historian(port: int, cap: int, points: bool, ready: asyncio.Event, stop: asyncio.Event) -> None:
    """Loops with the same names below, in an archive whose answers are short, with a continuation point or without."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    storage = HistoryDict(max_history_data_response_size=cap)
    if not points:
        storage.read_node_history = without_points(storage.read_node_history)
    server.iserver.history_manager.set_storage(storage)
    await storage.init()
    index = await server.register_namespace(URI)
    async with server:
        for base, loop in enumerate(("FIC101", "TIC101")):
            parent = await server.nodes.objects.add_object(ua.NodeId(loop, index), ua.QualifiedName(loop, index))
            for part in ("PV", "SP") if base else ("PV", "OP"):
                name = ua.QualifiedName(part, index)
                node = await parent.add_variable(ua.NodeId(f"{loop}.{part}", index), name, 0.0)
                await server.historize_node_data_change(node, period=None, count=0)
                for i in range(250):
                    moment = files.START + timedelta(seconds=i // 3)  # three values a stamp
                    value = ua.Variant(math.nan if i == 99 else 1000.0 * base + i)
                    data = ua.DataValue(value, ua.StatusCode(0), SourceTimestamp=moment, ServerTimestamp=moment)
                    await storage.save_node_value(node.nodeid, data)
        ready.set()
        await stop.wait()


def without_points(read):
    async def short(*arguments):
        values, _ = await read(*arguments)
        return values, None

    return short


@pytest.mark.parametrize(("cap", "points"), [(40, True), (40, False), (3, False)])
def test_a_short_answer_is_not_the_last_and_loops_of_the_same_names_stay_apart(tmp_path, cap, points):
    async def scenario() -> None:
        port, stop, ready = free_port(), asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(capped_historian(port, cap, points, ready, stop))
        try:
            await asyncio.wait_for(ready.wait(), 20)
            await asyncio.to_thread(work, f"opc.tcp://127.0.0.1:{port}")
        finally:
            stop.set()
            await serving

    def work(url: str) -> None:
        end = ImportConfig(end="2024-05-14T00:00:00Z", name="all", accept_losses=True)
        place = import_files([url], tmp_path / "site", end)
        assert points or summary(place)["files"][0]["rows"] == 4 * 250  # this server's points repeat values of a stamp
        table = table_of(place).sort("t_ns")
        assert set(table["signal"]) == {"FIC101.PV", "TIC101.PV", "SP", "OP"}
        last = [1000.0 + min(3 * s + 2, 249) for s in range(84)]
        assert table.filter(pl.col("signal") == "TIC101.PV")["value"].to_list() == last
        nodes = tmp_path / "nodes.txt"
        nodes.write_text("\n".join(f"nsu={URI};s={loop}.PV" for loop in ("FIC101", "TIC101")))
        named = import_files([url], tmp_path / "site", replace(end, name="named", query=f"@{nodes}"))
        assert set(table_of(named)["signal"]) == {"FIC101.PV", "TIC101.PV"}

    asyncio.run(scenario())


def test_names_are_as_much_of_a_path_as_no_other_has():
    assert _shortest([("A", "FIC1", "PV"), ("B", "FIC1", "PV"), ("B", "FIC2", "PV"), ("B", "LT")]) == [
        "A.FIC1.PV",
        "B.FIC1.PV",
        "FIC2.PV",
        "LT",
    ]
    with pytest.raises(HistorianError, match=r"two variables are called 'A.PV'"):
        _shortest([("A", "PV"), ("A", "PV")])


class Archive:
    """A node whose answers are written down: what it was asked, and what it says each time."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def history_read(self, details, point=None):
        self.asked.append((details.StartTime, point))
        answer = self.answers.pop(0) if self.answers else ([], None)
        if isinstance(answer, Exception):
            raise answer
        moments, after = answer
        values = [ua.DataValue(ua.Variant(1.0), SourceTimestamp=files.START + timedelta(seconds=s)) for s in moments]
        return ua.HistoryReadResult(HistoryData=ua.HistoryData(DataValues=values), ContinuationPoint=after)


def seconds_of(reader, node):
    with asyncio.Runner() as runner:
        answers = list(reader._answers_of("A", node, runner))
    return [(value.SourceTimestamp - files.START).seconds for values in answers for value in values]


def reader():
    return OpcUaHistoryReader("opc.tcp://nowhere", [], files.START, files.START + timedelta(days=1))


def test_a_continuation_point_that_the_server_forgot_is_made_up_for_by_the_last_stamp():
    node = Archive(([0, 1, 2], b"x"), BadContinuationPointInvalid(), ([2, 3, 4], None), ([4], None))
    assert seconds_of(reader(), node) == [0, 1, 2, 3, 4]
    assert node.asked[2] == (files.START + timedelta(seconds=2), None)


def test_a_server_that_ignores_what_it_is_asked_for_comes_to_an_end():
    assert seconds_of(reader(), Archive(*[([0, 1, 2, 2], None)] * 9)) == [0, 1, 2, 2]
    assert seconds_of(reader(), Archive(*[([0, 1], b"same")] * 3)) == [0, 1, 0, 1]


def test_a_node_that_may_not_be_read_is_named_and_the_others_go_on():
    of = reader()
    assert seconds_of(of, Archive(BadUserAccessDenied())) == []
    assert of.unread == ["A (BadUserAccessDenied)"]
    with pytest.raises(HistorianError, match="history of A: BadServerHalted"):
        seconds_of(of, Archive(BadServerHalted()))
