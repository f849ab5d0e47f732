"""The process that runs OLCAO in a directory: its own scripts make the inputs and run its programs.

``python -m htxas.engines.olcao DIRECTORY`` finds the user's OLCAO as :mod:`htxas.engines.external` says
(``HTXAS_OLCAO``: the folder of its programs, ``OLCAO_BIN``); its databases are in ``OLCAO_DATA``, or in ``share``
beside that folder. What ran and how it ended is left in ``outcome.json``, with checksums of the files that are read.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from htxas.engines.base import Job
from htxas.engines.external import Program, call, find_program, run_and_tell
from htxas.engines.olcao.parameters import parameters_from
from htxas.engines.olcao.write import InputError, changed_input, lay_out, makeinput_words
from htxas.errors import Cause, EngineFailure

__all__ = ["find_olcao", "main", "results", "site_folder"]

_NEEDED = ("makeinput", "olcao")
_DATABASES = ("atomicBDB", "atomicPDB", "spaceDB")
_SCRATCH = "scratch"
_USUAL = {
    **{
        "OLCAO_TOUCH": "0",
        "OLCAO_QUEUE": "0",
        "OLCAO_DOUBLE": "8",
        "OLCAO_RC": "",
        "OLCAO_TAR": "",
        "USER": "htxas",
    },
    **{f"VASPPOT_{name}": "" for name in ("DIR", "USPP_LDA", "USPP_GGA", "PAW_LDA", "PAW_GGA", "PAW_PBE")},
    **{f"VASPPOT_{name}": "" for name in ("PAW_LDA5x", "PAW_PBE5x")},
}
"""Variables of a user's session with OLCAO: its scripts do not even begin where one is not set."""


def find_olcao(environment: Mapping[str, str]) -> tuple[Program, Path]:
    """Return the user's OLCAO and the folder of its databases.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none, or a script or database lacks.
    """
    program = find_program(
        environment, code="OLCAO", variable="HTXAS_OLCAO", names=("makeinput",), needed=_NEEDED
    )
    if program.folder is None:
        raise EngineFailure(
            Cause.BAD_INPUT, "OLCAO is a folder of programs (OLCAO_BIN), not one", where=program.words[0]
        )
    data = Path(environment.get("OLCAO_DATA") or program.folder.parent / "share")
    lacking = next((d for d in _DATABASES if not (data / d).is_dir()), None)
    if lacking is not None:
        raise EngineFailure(
            Cause.BAD_INPUT,
            f"OLCAO has no {lacking}",
            where=str(data),
            hint="set OLCAO_DATA to its databases",
        )
    return program, data


def site_folder(directory: Path, element: str | None) -> Path | None:
    """Return the folder that ``makeinput`` made for the first atom's hole: ``o1_1``."""
    assert element is not None
    found = [p.parent for p in directory.glob(f"{element.lower()}[0-9]*_1/inputs") if p.is_dir()]
    return found[0] if len(found) == 1 else None


def results(directory: Path, element: str | None) -> list[Path]:
    """Return the files that are read of a run, those that are there."""
    folder = site_folder(directory, element)
    if folder is None:
        return []
    patterns = ("*_iter-*.dat", "*_pacs-*.plot", "inputs/olcao.dat")
    return sorted(p for pattern in patterns for p in folder.glob(pattern) if p.is_file())


def _run(job: Job, directory: Path, program: Program, told: dict[str, Any]) -> None:
    c = job.calculation
    assert c.atom is not None
    assert c.element is not None
    parameters = parameters_from(c.parameters)
    _, divisions = lay_out(job.structure, c.atom, parameters)
    _step(
        told,
        directory,
        [program.command("makeinput", alone=True)[0], *makeinput_words(parameters, divisions)],
    )
    folder = site_folder(directory, c.element)
    if folder is None:
        return
    dat = folder / "inputs" / "olcao.dat"
    try:
        dat.write_text(changed_input(dat.read_text(), parameters, c.element, job.numerics))
        if not (other := dat.with_name("kp-alt.dat")).exists():  # olcao opens it, whether it is used or not
            shutil.copyfile(dat.with_name("kp-pscf.dat"), other)
    except (OSError, InputError) as error:
        raise EngineFailure(Cause.BAD_OUTPUT, f"what makeinput left: {error}", where=str(folder)) from None
    words = ["-scf", parameters.basis, "-pscf", parameters.spectrum_basis, "-pacs", "1s"]
    _step(told, folder, [program.command("olcao", alone=True)[0], *words], directory)


def _step(told: dict[str, Any], folder: Path, command: list[str], logs: Path | None = None) -> None:
    name = Path(command[0]).name
    start = time.monotonic()
    status = call(command, folder, (logs or folder) / f"{name}.out")
    told["steps_s"][name] = round(time.monotonic() - start, 3)
    told["statuses"][name] = status


def main(words: list[str]) -> int:
    """Run one directory; 0 unless its input is not ours."""
    directory = Path(words[0]).resolve()

    def compute(job: Job) -> dict[str, Any]:
        program, data = find_olcao(os.environ)
        assert program.folder is not None
        scratch = directory / _SCRATCH
        scratch.mkdir(exist_ok=True)
        os.environ |= {
            "OLCAO_BIN": str(program.folder),
            "OLCAO_DATA": str(data),
            # Named by the path below the user's home: runs elsewhere would share one, and its lock.
            "OLCAO_TEMP": str(scratch),
            "OLCAO_EXE": " ".join(program.launcher),
        }
        os.environ["PATH"] = f"{program.folder}{os.pathsep}{os.environ.get('PATH', '')}"
        for name, usual in _USUAL.items():
            os.environ.setdefault(name, usual)
        told: dict[str, Any] = {"program": [str(program.folder)], "steps_s": {}, "statuses": {}}
        try:
            _run(job, directory, program, told)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        told["outputs_sha256"] = {
            str(p.relative_to(directory)): sha256(p.read_bytes()).hexdigest()
            for p in results(directory, job.calculation.element)
        }
        return told

    return run_and_tell(directory, directory.glob("olcao.skl"), compute)
