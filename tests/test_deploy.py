"""The notes for a site's own MongoDB, tried on a real server."""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from pymongo.uri_parser import parse_uri

from htxas.launch.pad.launchpad import open_launchpad
from htxas.store.mongod import find_mongod
from htxas.store.store import Store

pytestmark = pytest.mark.mongo
DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


@pytest.fixture
def limited_uri(mongod_uri: str) -> Iterator[str]:
    """Connection string of a user with the rights of ``users.js``, on databases of another name."""
    script = (DEPLOY / "mongodb/users.js").read_text()
    roles = re.findall(r'role: "(\w+)", db: name', script)
    databases = re.search(r"\[(.*)\]\.flatMap", script)
    assert roles
    assert databases
    assert re.findall(r'"(\w+)"', databases[1]) == ["htxas", "htxas_fireworks"]
    names = ["limited", "limited_fireworks"]
    user, password = "limited", secrets.token_hex(16)
    with MongoClient(mongod_uri) as admin:
        grants = [{"role": role, "db": name} for name in names for role in roles]
        admin.admin.command("createUser", user, pwd=password, roles=grants)
        host, port = parse_uri(mongod_uri)["nodelist"][0]
        yield f"mongodb://{user}:{password}@{host}:{port}/?authSource=admin&directConnection=true"
        admin.admin.command("dropUser", user)
        for name in names:
            admin.drop_database(name)


def test_these_rights_are_enough(limited_uri: str) -> None:
    with Store.open(limited_uri, name="limited") as store:
        assert store.campaigns() == []
        pad = open_launchpad(store)
        assert pad.get_fw_ids() == []
        pad.connection.close()
    with Store.open(limited_uri, name="limited") as again:
        assert again.counts() is not None


def test_and_for_nothing_else(limited_uri: str) -> None:
    with MongoClient(limited_uri) as client, pytest.raises(OperationFailure, match="not authorized"):
        client.elsewhere.things.insert_one({})


def test_the_configuration_is_one(require_mongod: None) -> None:
    mongod = find_mongod()
    done = subprocess.run(
        [str(mongod.path), "--config", str(DEPLOY / "mongodb/mongod.conf"), "--outputConfig"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "replSetName: htxas" in done.stdout
    assert "mode: requireTLS" in done.stdout
