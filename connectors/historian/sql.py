"""Databases: a query through a connection URI becomes a CSV file beside the import, read as any other.

SQLite by the standard library; PostgreSQL by its own client `psql`, which knows services, password files and TLS.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from connectors.historian.long import plan
from fusion.errors import ConfigError, HistorianError

SCHEMES = ("sqlite", "postgresql", "postgres")
ROWS_AT_ONCE = 50_000
_IGNITION = re.compile(r"(?i)^sqlt_data_\d+_\d{4}_\d{1,2}$")
_POSTGRES_COLUMNS = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', "
    "'information_schema') ORDER BY table_name, ordinal_position"
)
_IGNITION_QUERY = (
    "SELECT te.tagpath, d.intvalue, d.floatvalue, d.stringvalue, d.dataintegrity, d.t_stamp "
    "FROM {table} d JOIN sqlth_te te ON te.id = d.tagid"
)
_WHOLE_TABLE = "SELECT * FROM {table}"
Tables = Mapping[str, Sequence[str]]


def export(uri: str, query: str, aside: Path) -> tuple[Path, str]:
    """The rows of a query as a CSV file, and the URI without its password.

    Raises:
        HistorianError: where the database cannot be reached or refuses the query.
        ConfigError: where no query was given and no table is one that is known.
    """
    scheme = uri.split(":", 1)[0]
    copy = aside / "query.csv"
    if scheme == "sqlite":
        _export_sqlite(_sqlite_file(uri), query, copy)
        return copy, uri
    _export_postgres(uri, query, copy)
    return copy, _without_password(uri)


def default_query(tables: Tables, where: str) -> str:
    """The query of a database whose tables are known: Ignition's, or the only one with tag, time and value.

    Raises:
        ConfigError: naming the tables, where there is no such one or more than one.
    """
    ignition = sorted(name for name in tables if _IGNITION.match(name))
    if ignition and "sqlth_te" in {name.lower() for name in tables}:
        return " UNION ALL ".join(_IGNITION_QUERY.format(table=_quoted(table)) for table in ignition)
    fitting = [name for name, columns in tables.items() if (how := plan(columns, {})) is not None and how.tag]
    if len(fitting) == 1:
        return _WHOLE_TABLE.format(table=_quoted(fitting[0]))
    listed = ", ".join(sorted(tables)[:20]) or "none"
    raise ConfigError(
        f"{where}: say --query, a SELECT of tag, time, value, quality; looked for Ignition's sqlt_data_ tables or one "
        f"table with tag, time and value, found {len(fitting)} among: {listed}"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- SQLite


def _sqlite_file(uri: str) -> Path:
    path = unquote(re.sub(r"^sqlite:(///|//)?", "", uri))
    path = "/" + path.lstrip("/") if uri.startswith("sqlite:////") else path
    file = Path(path) if Path(path).is_file() else Path("/" + path)
    if not file.is_file():
        raise HistorianError(f"{uri}: no such database file; expected sqlite:///path/to/file.db")
    return file


def _export_sqlite(file: Path, query: str, copy: Path) -> None:
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            cursor = database.execute(query or default_query(_sqlite_tables(database), str(file)))
            _write(copy, [column[0] for column in cursor.description or ()], lambda: cursor.fetchmany(ROWS_AT_ONCE))
    except sqlite3.Error as error:
        raise HistorianError(f"{file}: {error}") from error


def _sqlite_tables(database: sqlite3.Connection) -> Tables:
    names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    return {name: [row[1] for row in database.execute(f"PRAGMA table_info({_quoted(name)})")] for name in names}


def _write(copy: Path, header: Sequence[str], fetch: Callable[[], list[tuple[object, ...]]]) -> None:
    with copy.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        while rows := fetch():
            writer.writerows(rows)


# --- PostgreSQL


def _export_postgres(uri: str, query: str, copy: Path) -> None:
    if shutil.which("psql") is None:
        raise HistorianError(
            f"{_without_password(uri)}: psql is needed and was not found; on Debian: postgresql-client"
        )
    query = query or default_query(_postgres_tables(uri), _without_password(uri))
    with copy.open("wb") as out:
        _psql(uri, f"COPY ({query.strip().rstrip(';')}) TO STDOUT WITH (FORMAT csv, HEADER)", out.fileno())


def _postgres_tables(uri: str) -> Tables:
    answer = _psql(uri, f"COPY ({_POSTGRES_COLUMNS}) TO STDOUT WITH (FORMAT csv)", subprocess.PIPE)
    tables: dict[str, list[str]] = {}
    for table, column in csv.reader(answer.decode().splitlines()):
        tables.setdefault(table, []).append(column)
    return tables


def _psql(uri: str, command: str, out: int) -> bytes:
    """Run one statement; the password travels in the environment, where no process list shows it."""
    options = "-c timezone=UTC -c datestyle=ISO -c default_transaction_read_only=on -c extra_float_digits=1"
    environment = {**os.environ, "PGOPTIONS": options, "PGCONNECT_TIMEOUT": "10", "PGCLIENTENCODING": "UTF8"}
    if password := urlsplit(uri).password:
        environment["PGPASSWORD"] = unquote(password)
    arguments = ["psql", "-X", "--no-password", "-q", "-v", "ON_ERROR_STOP=1", "-d", _bare(uri), "-c", command]
    done = subprocess.run(arguments, stdout=out, stderr=subprocess.PIPE, env=environment, check=False)
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no answer"])[0]
        raise HistorianError(f"{_without_password(uri)}: {reason}")
    return done.stdout or b""


def _bare(uri: str) -> str:
    """The URI as libpq wants it, its password taken out."""
    parts = urlsplit(uri)
    user = f"{parts.username}@" if parts.username else ""
    place = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit(("postgresql", user + place, parts.path, parts.query, ""))


def _without_password(uri: str) -> str:
    return _bare(uri)
