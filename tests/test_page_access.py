"""The page's door: who gets in, from where, for how long, and what a viewer may not do."""

import contextlib
import http.client
import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path
from types import SimpleNamespace

import pytest
from wire_examples import free_port, listening, until

from fusion.alarms import OrderKind
from fusion.cli import main
from fusion.dashboard.access import FAILURES, FAILURES_IN_S, Access, Person, Right, Visit, hash_password, read_people
from fusion.dashboard.app import DashboardConfig
from fusion.dashboard.cards import OperatorOrders
from fusion.dashboard.model_view import put_to_use
from fusion.errors import ConfigError
from fusion.publish.orders import ModelOrderMessage

ROOT = Path(__file__).parents[1]
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    file = tmp_path_factory.mktemp("people") / "users"
    (file.parent / "secret").write_text(PASSWORD + "\n")
    for name, right in (("kim", "operator"), ("guest", "viewer")):
        given = ["--users", str(file), "--right", right, "--password-file", str(file.parent / "secret")]
        assert main(["user", name, *given]) == 0
    return file


# --- people and sessions


def test_people_are_kept_as_hashes_for_the_owner_alone(people, capsys):
    assert PASSWORD not in people.read_text()
    assert people.stat().st_mode & 0o077 == 0
    assert {p.name: p.right for p in read_people(people).values()} == {"kim": "operator", "guest": "viewer"}


@pytest.mark.parametrize("line", ["kim", "kim:admin:00$00", "kim:viewer:xx$00", ":viewer:00$00", "", "\xff"])
def test_a_file_of_people_that_is_none_is_named_with_its_line(tmp_path, line):
    file = tmp_path / "users"
    file.write_bytes(line.encode("latin-1"))
    with pytest.raises(ConfigError, match="users: .*users"):
        read_people(file)


@pytest.mark.parametrize(("name", "password"), [("a:b", PASSWORD), (" a", PASSWORD), ("", PASSWORD), ("kim", "short")])
def test_a_name_or_password_that_cannot_be_is_refused(tmp_path, name, password, capsys):
    (tmp_path / "secret").write_text(password)
    given = ["--users", str(tmp_path / "users"), "--password-file", str(tmp_path / "secret")]
    assert main(["user", name, *given]) == 2
    assert "short" not in capsys.readouterr().err


@pytest.fixture
def timed():
    now = SimpleNamespace(s=0.0)
    known = {"kim": Person("kim", Right.OPERATOR, hash_password(PASSWORD))}
    return Access(known, session_s=1000.0, idle_s=100.0, clock=lambda: now.s), now


def test_a_session_ends_after_its_time_and_sooner_where_nobody_looks(timed):
    access, now = timed
    token = access.enter("kim", PASSWORD, "a")
    for now.s in range(0, 1000, 90):
        assert access.who(token).name == "kim"
    now.s = 1001.0
    assert access.who(token) is None
    token = access.enter("kim", PASSWORD, "a")
    now.s += 101.0
    assert access.who(token) is None
    token = access.enter("kim", PASSWORD, "a")
    access.leave(token)
    assert access.who(token) is None
    assert access.who("") is None


def test_failed_logins_of_an_address_are_slowed_down(timed):
    access, now = timed
    for name in ["kim", "nobody"] * FAILURES:
        if access.wait_s("a") == 0.0:
            assert access.enter(name, "wrong password", "a") == ""
    assert access.wait_s("a") == FAILURES_IN_S
    assert access.wait_s("b") == 0.0
    now.s += FAILURES_IN_S + 1.0
    assert access.wait_s("a") == 0.0


def test_each_right_holds_the_one_below_it_and_nobody_has_to_log_in_without_people():
    people = {right.value: Person(right.value, right, hash_password(PASSWORD)) for right in Right}
    access = Access(people)
    visits = [Visit(access, access.enter(right.value, PASSWORD, "a")) for right in Right]
    assert [(visit.may_order, visit.may_choose) for visit in visits] == [(False, False), (True, False), (True, True)]
    gone, alone = Visit(access, "no"), Visit(Access({}), "")
    assert [(visit.may_order, visit.may_choose) for visit in (gone, alone)] == [(False, False), (True, True)]


def test_a_viewer_and_an_ended_session_send_no_order():
    sent = []
    feed = SimpleNamespace(connected=True, order=lambda *order: sent.append(order))
    board, operator = SimpleNamespace(daemon="online", silent_s=0.0, name="kiln"), SimpleNamespace(name="kim")
    access = Access(
        {n: Person(n, Right(r), hash_password(PASSWORD)) for n, r in (("kim", "operator"), ("g", "viewer"))}
    )
    viewer, kim = (Visit(access, access.enter(name, PASSWORD, "a")) for name in ("g", "kim"))
    assert "may look, not order" in OperatorOrders(board, feed, operator, viewer)("a1", OrderKind.ACKNOWLEDGE)
    assert "may look, not order" in OperatorOrders(board, feed, operator, Visit(access, "no"))("a1", OrderKind.NORMAL)
    assert sent == []
    assert OperatorOrders(board, feed, operator, kim)("a1", OrderKind.ACKNOWLEDGE) == ""
    assert len(sent) == 1


def test_only_an_engineer_puts_a_model_to_use():
    sent = []
    feed = SimpleNamespace(connected=True, choose=lambda *order: sent.append(order))
    board, operator = SimpleNamespace(daemon="online", silent_s=0.0, name="kiln"), SimpleNamespace(name="kim")
    access = Access({right.value: Person(right.value, right, hash_password(PASSWORD)) for right in Right})
    visits = {right: Visit(access, access.enter(right.value, PASSWORD, "a")) for right in Right}
    for visit in (visits[Right.VIEWER], visits[Right.OPERATOR], Visit(access, "no")):
        assert "may not choose the model" in put_to_use(board, feed, operator, visit, "0002")
    assert sent == []
    assert put_to_use(board, feed, operator, visits[Right.ENGINEER], "0002") == ""
    assert sent == [("kiln", ModelOrderMessage(model="0002", by="kim"))]


# --- the served page


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "plant.example"])
def test_a_page_for_others_needs_a_login(host):
    with pytest.raises(ConfigError, match=r"whoever reaches it may order; make a login first \(`fusion user"):
        DashboardConfig(host=host)
    assert DashboardConfig(host=host, users="users").host == host


@contextlib.contextmanager
def page(*options):
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_CURRENT_TEST", None)
    command = [sys.executable, "-m", "fusion.cli", "dashboard", "--port", str(port), "--broker", f"127.0.0.1:{port}"]
    with subprocess.Popen([*command, *options], env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: listening(port) or process.poll() is not None, "the page", 40.0)
            assert process.poll() is None, process.stderr.read()
            yield lambda *what, **more: ask(port, *what, **more)
        finally:
            process.terminate()
            process.wait(10)


def ask(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return SimpleNamespace(status=answer.status, headers=answer.headers, text=answer.read().decode())


def login(ask, name="kim", password=PASSWORD, **headers):
    return ask("POST", "/login", urllib.parse.urlencode({"name": name, "password": password}), **headers)


WS = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
}


def test_a_page_with_a_login_lets_in_whom_it_knows_and_nobody_else(people):
    with page("--host", "0.0.0.0", "--users", str(people)) as ask:
        stranger = ask("GET", "/", Accept="text/html")
        assert (stranger.status, stranger.headers["location"]) == (303, "/login")
        for path in ("/", WS, "/_nicegui/x", "/model/0001/report"):
            assert ask("GET", path).status == 401
        assert ask("GET", WS.replace("polling", "websocket"), **UPGRADE).status == 403
        form = ask("GET", "/login")
        assert form.status == 200
        assert form.headers["x-frame-options"] == "DENY"
        assert login(ask, Origin="http://evil.example").status == 403

        entered = login(ask)
        assert (entered.status, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"]
        assert re.search("HttpOnly.*SameSite=strict", cookie, re.IGNORECASE)
        cookie = cookie.partition(";")[0]
        assert ask("GET", "/", Cookie=cookie, Accept="text/html").status == 200
        spoken = ask("GET", WS, Cookie=cookie)
        assert spoken.status == 200
        foreign = ask("GET", WS, Cookie=cookie, Origin="http://evil.example")
        assert foreign.status == 403
        assert "evil" not in str(foreign.headers) + foreign.text
        assert ask("POST", "/logout", Cookie=cookie).status == 303
        assert ask("GET", "/", Cookie=cookie).status == 401

        for _ in range(FAILURES):
            assert login(ask, password="wrong <b>password").status == 401
        late = login(ask)
        assert late.status == 429
        assert int(late.headers["retry-after"]) > 200


def test_a_page_on_loopback_needs_no_login_and_knows_no_foreign_name():
    with page() as ask:
        assert ask("GET", "/", Accept="text/html").status == 200
        assert ask("GET", WS).status == 200
        assert ask("GET", WS, Host="rebound.example").status == 403
        assert ask("GET", WS, Origin="http://evil.example").status == 403
        assert ask("GET", WS.replace("polling", "websocket"), Origin="http://evil.example", **UPGRADE).status == 403


def test_a_page_for_others_without_a_login_is_refused_by_the_command(capsys):
    assert main(["dashboard", "--host", "0.0.0.0", "--port", str(free_port())]) == 2
    assert "make a login first" in capsys.readouterr().err
