from __future__ import annotations

from pathlib import Path

import pytest

from htxas import settings
from htxas.errors import DatabaseUnavailable, UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("HTXAS_DB_URI", "HTXAS_DB_URI_FILE", "HTXAS_DB_PATIENCE_S", "HTXAS_MONGOD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path))
    return tmp_path


def test_folders_lie_in_the_home(home, monkeypatch):
    assert settings.home() == home
    assert settings.runs_folder() == home / "runs"
    assert settings.models_folder() == home / "models"
    assert settings.datasets_folder() == home / "datasets"
    assert not any(home.iterdir())  # asking creates nothing
    monkeypatch.delenv("HTXAS_HOME")
    assert settings.home() == Path.home() / ".htxas"


def test_no_database_says_how_to_start_one():
    with pytest.raises(DatabaseUnavailable, match="htxas db up"):
        settings.database_location()


def test_the_environment_goes_before_the_private_server(home, monkeypatch):
    secret = home / "db" / "uri"
    secret.parent.mkdir()
    secret.write_text("mongodb://private/\n")
    secret.chmod(0o600)
    assert settings.database_location() == settings.DatabaseLocation("mongodb://private/", str(secret), True)
    other = home / "site"
    other.write_text("mongodb://site/\n")
    other.chmod(0o600)
    monkeypatch.setenv("HTXAS_DB_URI_FILE", str(other))
    assert settings.database_location().uri == "mongodb://site/"
    monkeypatch.setenv("HTXAS_DB_URI", "mongodb://first/")
    location = settings.database_location()
    assert (location.uri, location.source, location.private) == ("mongodb://first/", "HTXAS_DB_URI", False)


@pytest.mark.parametrize(
    ("mode", "text", "message"),
    [(0o644, "mongodb://x/", "chmod 600"), (0o600, "", "one line"), (0o600, "a\nb", "one line")],
)
def test_a_careless_file_of_secrets_is_refused(home, mode, text, message):
    path = home / "uri"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(DatabaseUnavailable, match=message):
        settings.read_secret(path)


def test_an_absent_file_of_secrets(home):
    with pytest.raises(DatabaseUnavailable, match="No such file"):
        settings.read_secret(home / "absent")


def test_patience(monkeypatch):
    assert settings.database_patience_s() == 60
    monkeypatch.setenv("HTXAS_DB_PATIENCE_S", "2.5")
    assert settings.database_patience_s() == 2.5
    for wrong in ("-1", "soon", "inf", "nan"):
        monkeypatch.setenv("HTXAS_DB_PATIENCE_S", wrong)
        with pytest.raises(UserError, match="number of seconds"):
            settings.database_patience_s()
