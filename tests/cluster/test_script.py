"""Queue scripts: what comes out, and that nothing in a profile becomes a command."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htxas.assets import share
from htxas.cluster.load import load_config
from htxas.cluster.profile import Profile
from htxas.cluster.script import Job, pilot_folder, pilot_ids, render, submission_folder
from htxas.errors import UserError
from tests.cluster.profiles import BASE, profile

SCHEDULERS: dict[str, dict[str, Any]] = {
    "slurm": {},
    "pbs": {},
    "torque": {"scheduler": "pbs", "dialect": "torque"},
    "sge": {"parallel_environment": "smp", "memory_resource": "mem_free"},
    "lsf": {},
    "local": {},
}
schedulers = pytest.mark.parametrize("scheduler", SCHEDULERS)
TASK = {
    "slurm": "SLURM_ARRAY_TASK_ID",
    "pbs": "PBS_ARRAY_INDEX",
    "torque": "PBS_ARRAYID",
    "sge": "SGE_TASK_ID",
    "lsf": "LSB_JOBINDEX",
    "local": "HTXAS_ARRAY_TASK",
}


def of(folder: Path, scheduler: str, **changes: Any) -> Profile:
    return profile(folder, **{"scheduler": scheduler, **SCHEDULERS[scheduler], **changes})


def directives(script: str) -> list[str]:
    return [line for line in script.splitlines() if re.match(r"#(SBATCH|PBS|\$|BSUB)", line)]


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a node would, in an environment of its own."""
    path = folder / "script.sh"
    path.write_text(script)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment}
    return subprocess.run(
        ["/bin/bash", path], env=env, cwd=folder, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Stands for the interpreter: prints its arguments, one per line, and the environment htxas is to have."""
    path = tmp_path / "bin" / "my python"
    path.parent.mkdir()
    path.write_text(
        "#!/bin/sh\nprintf '%s\\n' \"$@\"\nenv | grep -E '^(HTXAS_|TMPDIR)' | sort\necho pid $$ $PPID\n"
    )
    path.chmod(0o755)
    return path


@schedulers
@pytest.mark.parametrize("array", [1, 3])
def test_every_template_is_a_script(tmp_path: Path, scheduler: str, array: int) -> None:
    p = of(tmp_path, scheduler)
    script = render(Job(p, p.partition(), "a1b2", array=array, campaign="my campaign"))
    checked = subprocess.run(
        ["/bin/bash", "-n"], input=script, capture_output=True, text=True, timeout=20, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "{" not in "\n".join(directives(script))
    assert "\n\n\n" not in script


@schedulers
def test_the_pilot_gets_what_was_agreed(tmp_path: Path, scheduler: str, python: Path) -> None:
    p = of(tmp_path, scheduler, home=str(tmp_path / "home"), python=str(python))
    done = run(render(Job(p, p.partition(), "a1b2", campaign="my campaign", bundle="/b/u n")), tmp_path)
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[: words.index("/b/u n") + 1] == [
        "-m", "htxas.launch.pilots.pilot", "--pilot", "a1b2", "--cluster", "mine", "--walltime-s", "86400",
        "--margin-s", "120", "--workers", "16", "--cores-per-worker", "4", "--memory-per-worker-MB", "4000",
        "--linger-s", "300", "--campaign", "my campaign", "--bundle", "/b/u n",
    ]  # fmt: skip
    assert f"HTXAS_HOME={tmp_path}/home" in words
    assert f"HTXAS_DB_URI_FILE={tmp_path}/home/db/uri" in words
    assert Path(pilot_folder(p, "a1b2")).is_dir()


@schedulers
def test_tasks_of_an_array_have_names_of_their_own(tmp_path: Path, scheduler: str, python: Path) -> None:
    p = of(tmp_path, scheduler, home=str(tmp_path / "home"), python=str(python))
    script = render(Job(p, p.partition(), "a1b2", array=3))
    done = run(script, tmp_path, **{TASK[scheduler]: "2"})
    assert done.stdout.splitlines()[2:4] == ["--pilot", pilot_ids("a1b2", 3)[1]]


@pytest.mark.parametrize("array", [1, 3])
def test_steps_of_a_slurm_job_keep_their_environment(tmp_path: Path, python: Path, array: int) -> None:
    """``--export=NONE`` stays in the job as a variable that srun heeds, too."""
    setup = ['echo "exports ${SLURM_EXPORT_ENV-what there is}"']
    p = of(tmp_path, "slurm", home=str(tmp_path / "home"), python=str(python), setup=setup)
    done = run(
        render(Job(p, p.partition(), "a1b2", array=array)),
        tmp_path,
        SLURM_EXPORT_ENV="NONE",
        SLURM_ARRAY_TASK_ID="2",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "exports what there is"


@pytest.mark.parametrize("mem", ["{{ memory_MB }}MB/host", "{{ memory_MB // cores }}MB"])
def test_memory_per_slot_is_one_change_in_a_copy(tmp_path: Path, mem: str) -> None:
    """As templates/README.md says."""
    assert f"`rusage[mem={mem}]`" in (share("templates") / "README.md").read_text()
    text = (share("templates") / "queue/lsf.sh").read_text()
    assert "RESOURCE_RESERVE_PER_TASK" in text
    (tmp_path / "mine.sh").write_text(text.replace("mem={{ memory_MB }}MB", f"mem={mem}"))
    p = of(tmp_path, "lsf", template="mine.sh")
    told = [line for line in directives(render(Job(p, p.partition(), "a1b2"))) if "rusage" in line]
    assert told == [f'#BSUB -R "span[hosts=1] rusage[mem={"64000MB/host" if "host" in mem else "1000MB"}]"']


def test_the_pilot_takes_the_place_of_the_script(tmp_path: Path, python: Path) -> None:
    p = of(tmp_path, "slurm", home=str(tmp_path / "home"), python=str(python), setup=["echo shell $$"])
    lines = run(render(Job(p, p.partition(), "a1b2")), tmp_path).stdout.splitlines()
    shell = lines[0].split()[1]
    assert lines[-1].split()[1] == shell


def test_no_secret_and_no_database_of_the_submitter(tmp_path: Path, python: Path) -> None:
    p = of(tmp_path, "slurm", home=str(tmp_path / "home"), python=str(python), database="none")
    done = run(render(Job(p, p.partition(), "a1b2")), tmp_path, HTXAS_DB_URI="mongodb://me:secret@db/")
    assert "HTXAS_DB" not in done.stdout


def test_the_database_from_a_variable_of_the_job(tmp_path: Path, python: Path) -> None:
    for name in ("MY_URI", "HTXAS_DB_URI"):
        p = of(tmp_path, "slurm", home=str(tmp_path), python=str(python), database={"uri_env": name})
        script = render(Job(p, p.partition(), "a1b2"))
        assert "HTXAS_DB_URI=mongodb://x" in run(script, tmp_path, **{name: "mongodb://x"}).stdout
        p = of(tmp_path, "slurm", home=str(tmp_path), python="/usr/bin/env", database={"uri_env": name})
        bare = render(Job(p, p.partition(), "a1b2")).replace('env -m htxas.launch.pilots.pilot "$@"', "env")
        # One copy, under the name that htxas keeps from engines.
        assert run(bare, tmp_path, **{name: "mongodb://x"}).stdout.count("mongodb://x") == 1
        missing = run(script, tmp_path)
        assert missing.returncode != 0
        assert f"{name}: should hold the address of the database" in missing.stderr


def test_scratch(tmp_path: Path, python: Path) -> None:
    p = of(tmp_path, "slurm", home=str(tmp_path), python=str(python), scratch="$LOCAL/my x")
    script = render(Job(p, p.partition(), "a1b2"))
    assert f"TMPDIR={tmp_path}/l/my x" in run(script, tmp_path, LOCAL=f"{tmp_path}/l").stdout
    assert (tmp_path / "l/my x").is_dir()
    assert "LOCAL: scratch in htxas.yaml begins with this variable, but" in run(script, tmp_path).stderr


def test_slurm(tmp_path: Path) -> None:
    p = of(
        tmp_path, "slurm", account="abc123", options=["--constraint=skylake"],
        partitions={"main": {**BASE["partitions"]["main"], "nodes": 4, "queue": "normal"}},
    )  # fmt: skip
    script = render(Job(p, p.partition(), "a1b2", array=2))
    assert directives(script) == [
        "#SBATCH --job-name=htxas-a1b2",
        "#SBATCH --partition=normal",
        "#SBATCH --account=abc123",
        "#SBATCH --time=24:00:00",
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=64",
        "#SBATCH --mem=64000M",
        "#SBATCH --array=1-2",
        "#SBATCH --output=/shared/me/htxas/pilots/a1b2/slurm-%a.out",
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        "#SBATCH --export=NONE",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --constraint=skylake",
    ]
    # --export=NONE is inherited by srun, which would give the agents an empty environment.
    assert "exec srun --export=ALL --ntasks-per-node=1 --cpus-per-task=64" in script


def test_openpbs_and_torque(tmp_path: Path) -> None:
    p, t = of(tmp_path, "pbs"), of(tmp_path, "torque")
    assert "#PBS -l select=1:ncpus=64:mem=64000mb" in render(Job(p, p.partition(), "a1b2"))
    assert "#PBS -l nodes=1:ppn=64,mem=64000mb" in render(Job(t, t.partition(), "a1b2"))
    assert len(Job(t, t.partition(), "a1b2c3d4").name) <= 15  # Torque takes no more


def test_grid_engine(tmp_path: Path) -> None:
    p = of(tmp_path, "sge")
    lines = directives(render(Job(p, p.partition(), "a1b2", array=3)))
    assert "#$ -pe smp 64" in lines
    assert "#$ -l h_rt=24:00:00,s_rt=23:58:00" in lines
    assert "#$ -l mem_free=1000M" in lines  # per slot
    assert "#$ -o /shared/me/htxas/pilots/a1b2/sge-$TASK_ID.out" in lines


def test_lsf(tmp_path: Path) -> None:
    p = of(tmp_path, "lsf")
    lines = directives(render(Job(p, p.partition(), "a1b2")))
    assert "#BSUB -W 1440" in lines
    assert '#BSUB -R "span[hosts=1] rusage[mem=64000MB]"' in lines
    assert "#BSUB -env none" in lines


def test_setup_is_the_users_own_shell(tmp_path: Path, python: Path) -> None:
    setup = ["export HTXAS_X=$(echo 1)", "module() { echo loaded $1; }", "module gcc"]
    p = of(tmp_path, "slurm", home=str(tmp_path), python=str(python), setup=setup)
    out = run(render(Job(p, p.partition(), "a1b2")), tmp_path).stdout
    assert "HTXAS_X=1" in out
    assert "loaded gcc" in out


NASTY = [
    "$(touch {x})",
    "`touch {x}`",
    "'; touch {x}; '",
    '"; touch {x}; "',
    "a b",
    "\\'; touch {x} #",
    "é & touch {x}",
]


@pytest.mark.parametrize("word", NASTY)
def test_values_are_never_commands(tmp_path: Path, python: Path, word: str) -> None:
    mark = tmp_path / "mark"
    value = word.format(x=mark)
    p = of(tmp_path, "slurm", home=str(tmp_path / "h"), python=str(python), database={"uri_file": f"/{value}"},
           scratch=f"$LOCAL/{value}")  # fmt: skip
    done = run(
        render(Job(p, p.partition(), "a1b2", campaign=value, bundle=value)), tmp_path, LOCAL=str(tmp_path)
    )
    assert not mark.exists()
    words = done.stdout.splitlines()
    assert words[words.index("--campaign") + 1] == value
    assert words[words.index("--bundle") + 1] == value
    assert f"HTXAS_DB_URI_FILE=/{value}" in words
    assert f"TMPDIR={tmp_path}/{value}" in words


@settings(max_examples=60)
@given(campaign=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))
def test_any_text_reaches_the_pilot_as_it_is(tmp_path_factory: pytest.TempPathFactory, campaign: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    p = of(folder, "local", home=str(folder), python="/bin/echo")
    script = render(Job(p, p.partition(), "a1b2", campaign=campaign))
    quoted = script[script.index("--campaign ") + 11 : script.index("\nexec")]
    told = subprocess.run(
        ["/bin/bash", "-c", f"printf %s {quoted}"], capture_output=True, timeout=20, check=True
    ).stdout
    assert told.decode() == campaign


@pytest.mark.parametrize("home", ["/a b", "/a$(x)", "/a;b", "/a%j", "/a\tb", '/a"b', "/é"])
def test_paths_in_directives_are_plain(tmp_path: Path, home: str) -> None:
    with pytest.raises(UserError, match=r"clusters\.mine\.home"):
        of(tmp_path, "slurm", home=home)


def test_a_job_name_is_plain(tmp_path: Path) -> None:
    p = of(tmp_path, "slurm")
    for submission in ("a b", "", "a\n#SBATCH --x", "a-1", "ü", "x" * 41):
        with pytest.raises(UserError, match="cannot be part of a job name"):
            Job(p, p.partition(), submission)
    with pytest.raises(UserError, match="max_array is 1000"):
        Job(p, p.partition(), "a", array=1001)


def own_template(folder: Path, text: str, **changes: Any) -> Profile:
    (folder / "mine.sh").write_text(text)
    return of(folder, "slurm", template="mine.sh", **changes)


def complaint(folder: Path, text: str, **changes: Any) -> str:
    p = own_template(folder, text, **changes)
    with pytest.raises(UserError) as caught:
        render(Job(p, p.partition(), "a1b2"))
    assert "mine.sh" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/bash\n{{ walltme_s }}\n", "'walltme_s' is undefined"),
        ("#!/bin/bash\n{% if %}\n", "mine.sh:2"),
        ("#!/bin/bash\nmodule load gcc\n#SBATCH --mem=1G\n", "ignores line 3"),
        ("echo no shebang\n", "does not begin with #!"),
        ("#!/bin/bash\n{{ account }}\n", "not set"),
        ("#!/bin/bash\n#SBATCH -A {{ account|directive }}\n", "cannot be part of a directive"),
        ("#!/bin/bash\n{{ ''.__class__.__mro__ }}\n", "unsafe"),
        ("#!/bin/bash\n{% include '/etc/passwd' %}\n", "/etc/passwd"),
        ("#!/bin/bash\n{% include '../secret' %}\n", "../secret"),
    ],
)
def test_templates_are_rendered_strictly(tmp_path: Path, text: str, words: str) -> None:
    assert words in complaint(tmp_path, text)


def test_a_directive_refuses_to_end_its_line(tmp_path: Path) -> None:
    p = own_template(tmp_path, "#!/bin/bash\n#SBATCH {{ campaign|directive }}\n")
    with pytest.raises(UserError, match="one line of ASCII"):
        render(Job(p, p.partition(), "a1b2", campaign="x\ntouch y"))


def test_a_copy_of_a_template_works_and_shares_the_rest(tmp_path: Path) -> None:
    text = (share("templates") / "queue/slurm.sh").read_text()
    p = own_template(tmp_path, text.replace("--open-mode=append", "--open-mode=append\n#SBATCH --exclusive"))
    script = render(Job(p, p.partition(), "a1b2"))
    assert "#SBATCH --exclusive\n" in script
    assert "-m htxas.launch.pilots.pilot" in script
    (tmp_path / "pilot.sh").write_text("echo mine\n")
    assert "echo mine" in render(Job(p, p.partition(), "a1b2"))


def test_every_template_of_the_folder_is_rendered_here() -> None:
    names = {p.stem for p in (share("templates") / "queue").iterdir()}
    assert names == (set(SCHEDULERS) | {"pilot"}) - {"torque"}


def test_ids_and_folders(tmp_path: Path) -> None:
    p = of(tmp_path, "slurm")
    assert pilot_ids("a1b2", 1) == ["a1b2"]
    assert pilot_ids("a1b2", 2) == ["a1b2-1", "a1b2-2"]
    assert submission_folder(p, "a1b2") == pilot_folder(p, "a1b2") == "/shared/me/htxas/pilots/a1b2"


def test_the_shipped_configuration_renders(tmp_path: Path) -> None:
    shutil.copy(share("templates") / "htxas.yaml", tmp_path)
    p = load_config(tmp_path / "htxas.yaml").cluster()
    assert "module load gcc" in render(Job(p, p.partition(), "a1b2"))
