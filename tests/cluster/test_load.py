from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from htxas.assets import template
from htxas.campaign.yamlfile import load_yaml
from htxas.cluster.load import find_config, load_config
from htxas.cluster.profile import Dialect, Scheduler, Scratch
from htxas.cluster.schema import ClusterModel, ConfigModel
from htxas.errors import CampaignFileError, NotFound
from htxas.launch.watching.notify import NotifyModel
from htxas.learn.runs.queue_cluster import DaskModel
from tests.cluster.profiles import BASE, profile, write_config


def complaint(folder: Path, **changes: Any) -> str:
    with pytest.raises(CampaignFileError) as caught:
        profile(folder, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults(tmp_path: Path) -> None:
    p = profile(tmp_path)
    q = p.partition()
    assert (q.name, q.queue, q.walltime_s, q.memory_MB, q.nodes, q.max_array) == (
        "main",
        "main",
        86400,
        256000,
        1,
        1000,
    )
    assert (p.cores(q), p.memory_MB(q), p.workers(q)) == (64, 64000, 16)
    assert p.database.uri_file == "/shared/me/htxas/db/uri"
    assert p.template == template("queue/slurm.sh").absolute()
    assert p.engine("pyscf").launcher == ()


def test_without_a_host_home_and_python_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path / "home"))
    p = profile(tmp_path, home=None, python=None)
    assert p.home == str(tmp_path / "home")
    assert Path(p.python).is_file()


def test_our_home_may_be_no_home_for_a_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path / "my home"))
    assert "cannot stand in a directive" in complaint(tmp_path, home=None)
    assert profile(tmp_path, home=None, scheduler="local").home.endswith("my home")


def test_a_partition_may_differ_from_the_cluster(tmp_path: Path) -> None:
    short = {"queue": "short.q", "walltime": 1200, "cores": 16, "workers": 4}
    p = profile(tmp_path, partitions={"main": BASE["partitions"]["main"], "short": short})
    q = p.partition("short")
    assert (q.queue, p.workers(q), p.cores(q)) == ("short.q", 4, 16)
    with pytest.raises(NotFound, match="main, short"):
        p.partition("long")


def test_database_none_means_bundles(tmp_path: Path) -> None:
    assert not profile(tmp_path, database="none").database.reachable
    assert profile(tmp_path, database={"uri_env": "MY_URI"}).database.uri_env == "MY_URI"


def test_scratch(tmp_path: Path) -> None:
    assert profile(tmp_path, scratch="${TMPDIR}/x").scratch == Scratch("TMPDIR", "/x")
    assert str(profile(tmp_path, scratch="$TMPDIR").scratch) == "$TMPDIR"
    assert profile(tmp_path, scratch="/scratch/me").scratch == Scratch(None, "/scratch/me")
    assert "scratch" in complaint(tmp_path, scratch="$(rm -rf /)")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedulr": "slurm"}, "clusters.mine.schedulr: unknown key (did you mean 'scheduler'?)"),
        ({"scheduler": "condor"}, "clusters.mine.scheduler"),
        ({"partitions": {"main": {"walltime": "1:30", "cores": 4}}}, "partitions.main.walltime: a time as hours"),
        ({"partitions": {"main": {"walltme": 9, "cores": 4}}}, "did you mean 'walltime'?"),
        ({"partitions": {}}, "partitions"),
        ({"partitions": {"a b": {"walltime": 9000, "cores": 4}}}, "partitions.a b: letters, digits"),
        ({"pilots": {"workers": 16, "memory_per_worker": 4}}, "did you mean 'memory_per_worker_GB'?"),
        ({"pilots": {"workers": 32, "cores_per_worker": 4}}, "32 workers of 4 cores are 128, but"),
        ({"pilots": {"workers": 64, "memory_per_worker_GB": 5}}, "64 workers of 5 GB are 320 GB"),
        ({"pilots": {"workers": 1, "margin_s": 86399}}, "pilots.margin_s: 86399 s leave less than half"),
        ({"pilots": {"workers": 1, "margin_s": 0}}, "pilots.margin_s: 0 s are not enough to end and deliver"),
        ({"pilots": {"workers": 1, "margin_s": 9}}, "10 at least"),
        ({"pilots": {"workers": 1, "signal_s": 901}}, "pilots.signal_s: 900 s at most"),
        ({"engines": {"pyscff": {"workers": 1}}}, "no engine is called 'pyscff' (did you mean 'pyscf'?)"),
        ({"engines": {"xyzzy": {"workers": 1}}}, "no engine is called 'xyzzy' (there is: "),
        ({"engines": {"pyscf": {"launcher": ["srun", "-n", "16"]}}}, "srun would start copies of it"),
        ({"engines": {"pyscf": {"workers": 17}}}, "17 are more than the 16 workers of a pilot in 'main'"),
        ({"engines": {"pyscf": {"environment": {"PYSCF_CONFIG_FILE": "/x"}}}}, "unseen by provenance"),
        ({"engines": {"pyscf": {"environment": {"PYTHONPATH": "/x"}}}}, "PYTHONPATH: could change results"),
        ({"engines": {"pyscf": {"environment": {"LD_PRELOAD": "/x"}}}}, "unseen by provenance"),
        ({"engines": {"pyscf": {"environment": {"OMP_NUM_THREADS": "4,2"}}}}, "as many as cores_per_worker"),
        ({"host": "login.example.org", "home": None}, "home: is missing: htxas cannot guess it for login.example.org"),
        ({"host": "-oProxyCommand=x"}, "is not a host"),
        ({"login_shell": True}, "login_shell"),
        ({"home": "~/htxas"}, "an absolute path of letters"),
        ({"python": "python3"}, "python: an absolute path on the cluster is needed"),
        ({"database": {}}, "either uri_file or uri_env"),
        ({"database": {"uri": "mongodb://u:secret@h/"}}, "database.uri: unknown key"),
        ({"database": "somewhere"}, "database"),
        ({"account": "abc; rm -rf /"}, "account"),
        ({"options": ["--mem=1\nrm -rf /"]}, "one line of printable characters"),
        ({"template": "mine.sh"}, "there is no file"),
        ({"dialect": "torque"}, "belongs to scheduler: pbs, not slurm"),
        ({"parallel_environment": "smp"}, "belongs to scheduler: sge"),
        ({"scheduler": "sge"}, "parallel_environment: is missing"),
        ({"scheduler": "local", "account": "abc"}, "there is none without a scheduler"),
        ({"scheduler": "local", "options": ["-x"]}, "no directives without a scheduler"),
        ({"scheduler": "lsf", "partitions": {"main": {"walltime": 9000, "cores": 64, "nodes": 2}}}, "srun, which lsf"),
        ({"engines": {"pyscf": {"cores_per_worker": 16}}}, "16 workers need 256 cores, but pilots"),
        ({"engines": {"pyscf": {"memory_per_worker_GB": 16}}}, "16 workers need 256 GB"),
        ({"engines": {"pyscf": {"environment": {"HTXAS_DB_URI": "x"}}}}, "engines never see the database"),
        ({"engines": {"pyscf": {"environment": {"A B": "x"}}}}, "engines.pyscf.environment"),
    ],
)  # fmt: skip
def test_complaints_name_line_and_key(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    said = complaint(tmp_path, **changes)
    assert words in said
    assert "htxas.yaml:" in said
    assert "clusters.mine" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"setup": ["export DB=mongodb://me:secret@h/"]},
        {"engines": {"pyscf": {"environment": {"TOKEN": "mongodb+srv://me:secret@h/"}}}},
        {"options": ["--comment=http://:secret@proxy:8080"]},
    ],
)
def test_no_password_stands_in_the_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    said = complaint(tmp_path, **changes)
    assert "an address with a password" in said
    assert "secret" not in said
    assert "htxas.yaml:" in said
    path = write_config(tmp_path)
    path.write_text(path.read_text() + "# was mongodb://me:secret@h/\n")
    with pytest.raises(CampaignFileError, match="password"):
        load_config(path)
    assert profile(tmp_path, setup=["export DB=mongodb://me:$PASSWORD@h/", "cd http://h:80/a@b"])


def test_dialects_of_pbs(tmp_path: Path) -> None:
    assert profile(tmp_path, scheduler="pbs").dialect is Dialect.OPENPBS
    assert profile(tmp_path, scheduler="pbs", dialect="torque").dialect is Dialect.TORQUE


def test_which_cluster(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    assert config.cluster() is config.cluster("mine")
    with pytest.raises(NotFound, match="did you mean 'mine'"):
        config.cluster("nine")
    (tmp_path / "htxas.yaml").write_text("clusters: {}\n")
    with pytest.raises(NotFound, match="no cluster is described"):
        load_config(tmp_path / "htxas.yaml").cluster()


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.delenv("HTXAS_CONFIG", raising=False)
    monkeypatch.setenv("HTXAS_HOME", str(home))
    monkeypatch.chdir(here)
    with pytest.raises(NotFound, match="copy and change"):
        find_config()
    write_config(home)
    assert find_config() == home / "htxas.yaml"
    write_config(here)
    assert find_config() == Path("htxas.yaml")
    monkeypatch.setenv("HTXAS_CONFIG", str(home / "htxas.yaml"))
    assert find_config() == home / "htxas.yaml"
    monkeypatch.setenv("HTXAS_CONFIG", str(home / "none.yaml"))
    with pytest.raises(NotFound, match="HTXAS_CONFIG"):
        find_config()


def test_sections_of_others_are_checked_with_lines(tmp_path: Path) -> None:
    class Section(BaseModel, extra="forbid"):
        command: list[str]

    path = write_config(tmp_path)
    path.write_text(path.read_text() + "notify:\n  comand: [x]\n")
    config = load_config(path)
    line = len(path.read_text().splitlines())
    with pytest.raises(
        CampaignFileError,
        match=rf"htxas.yaml:{line}: notify.comand: unknown key; and 1 more \(did you mean 'command'",
    ):
        config.section(Section, config.notify, "notify")


def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Return every key of a model, sections included."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(name)
        stack: list[Any] = [field.annotation]
        while stack:
            kind = stack.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= keys(kind)
            stack += getattr(kind, "__args__", ())
    return found


def test_the_template_shows_every_key() -> None:
    text = template("htxas.yaml").read_text()
    every = keys(ConfigModel) | keys(NotifyModel) | keys(DaskModel)
    assert {k for k in every if f" {k}:" not in f" {text}".replace("\n", " ").replace("{", " ")} == set()


def test_the_template_is_valid_and_so_is_what_it_comments_out(tmp_path: Path) -> None:
    config = load_config(template("htxas.yaml"))
    p = config.cluster()
    assert p.scheduler is Scheduler.SLURM
    assert p.engine("pyscf").cores_per_worker == 16
    said = template("htxas.yaml").read_text().replace("# program:", "program:")
    (tmp_path / "htxas.yaml").write_text(said)
    assert load_config(tmp_path / "htxas.yaml").cluster().engine("pyscf").program[0] == "apptainer"
    if config.notify:
        config.section(NotifyModel, config.notify, "notify")
    if p.dask:
        config.section(DaskModel, p.dask, "clusters", p.name, "dask")


def test_the_defaults_in_the_template_are_the_defaults() -> None:
    """Keys whose comment says "default" alone, or "default; ...", show the default."""
    document, _ = load_yaml(template("htxas.yaml"))
    written = ClusterModel.model_validate(document["clusters"]["mycluster"])
    fresh = ClusterModel.model_validate(
        {"scheduler": "slurm", "partitions": {"main": {"walltime": 9, "cores": 1}}, "pilots": {"workers": 1}}
    )
    for key in ("most", "memory_per_worker_GB", "margin_s", "signal_s", "idle_s", "requeue"):
        assert getattr(written.pilots, key) == getattr(fresh.pilots, key)
    assert written.partitions["main"].max_array == fresh.partitions["main"].max_array
    assert written.timeout_s == fresh.timeout_s
