from __future__ import annotations

import os
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.result import SiteResult
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.qe.engine import ENGINE
from htxas.engines.qe.recipes import RECIPES, ld1_input, read_ld1
from htxas.engines.qe.upf import core_orbital, join_waves, read_upf, wave_misfits
from htxas.errors import Cause, EngineFailure, UserError

R = np.linspace(0.01, 6.0, 240)


def block(tag: str, values: np.ndarray, attributes: str = "") -> str:
    return f"<PP_{tag}{attributes}>\n" + "\n".join(f" {v:.15E}" for v in values) + f"\n</PP_{tag}>\n"


def upf(
    scale: float = 1.0,
    *,
    element: str = "C",
    electrons: float = 4.0,
    functional: str = "PBE",
    kind: str = "NC",
) -> str:
    """Return a file as ld1.x writes one, with two waves, the second pseudo one out of scale."""
    waves = ""
    for n, (label, factor) in enumerate((("2P", 1.0), ("3P", scale)), start=1):
        outer = np.cos(R * n) * np.exp(-R)
        inner = np.where(R < 1.5, outer + 0.3 * (1.5 - R) ** 3, outer)
        waves += (
            f'<PP_GIPAW_ORBITAL.{n} index="{n}" label="{label}" l="1">\n'
            + block("GIPAW_WFS_AE", outer, ' size="240"')
            + block("GIPAW_WFS_PS", inner * factor, ' size="240"')
            + f"</PP_GIPAW_ORBITAL.{n}>\n"
        )
    return (
        f'<UPF version="2.0.1"><PP_HEADER element=" {element}" functional="{functional}" pseudo_type="{kind}"\n'
        f' z_valence="{electrons:.3f}"/>\n'
        + block("R", R)
        + block("GIPAW_CORE_ORBITAL.1", np.exp(-6 * R), ' label="1S"')
        + waves
        + "</UPF>"
    )


def test_what_a_file_says_of_itself() -> None:
    found = read_upf(upf())
    assert (found.element, found.electrons, found.functional, found.kind) == ("C", 4.0, "PBE", "NC")
    with pytest.raises(ValueError, match="version 2"):
        read_upf("<PP_HEADER>\n 0 Version Number\n C Element\n</PP_HEADER>")
    assert len(core_orbital(upf()).splitlines()) == 241


@pytest.mark.parametrize("scale", [1.0, 0.7, 26.0, -3.0])
def test_waves_are_joined(scale: float) -> None:
    before, after = wave_misfits(upf(scale), 1.5), wave_misfits(join_waves(upf(scale), 1.5), 1.5)
    assert before["2P"] < 1e-9
    assert (before["3P"] < 1e-9) == (scale == 1.0)
    assert max(after.values()) < 1e-9
    with pytest.raises(ValueError, match="no partial waves"):
        join_waves(upf().replace("GIPAW_ORBITAL", "OTHER"), 1.5)


HOLE = {"file": "C-hole.UPF", "atom_eV": 399.0, "radius_a0": 1.5}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of the user's pseudopotentials."""
    folder = tmp_path / "pseudos"
    folder.mkdir()
    (folder / "C.UPF").write_text(upf())
    (folder / "C-hole.UPF").write_text(upf(electrons=5.0))
    monkeypatch.setenv("HTXAS_QE_PSEUDOS", f"/nowhere:{folder}")
    return folder


def resolve(**overrides: Any) -> dict[str, Any]:
    return dict(ENGINE.resolve("light", {"cutoff_Ry": 60.0, **overrides}, element="C", edge="K").site)


def test_files_of_the_users_are_in_the_identity(mine: Path) -> None:
    site = resolve(upf={"C": "C.UPF"}, hole_upf=HOLE)
    assert site["ground"]["upf"]["C"] == {
        "file": "C.UPF",
        "sha256": sha256((mine / "C.UPF").read_bytes()).hexdigest(),
        "electrons": 4.0,
    }
    assert site["hole"]["hole_upf"]["electrons"] == 5.0
    assert "absorber" not in site  # no recipe is used
    (mine / "C.UPF").write_text(upf() + "\n")
    assert resolve(upf={"C": "C.UPF"}, hole_upf=HOLE) != site


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (upf(element="N"), {}, "a pseudopotential of N, not of C"),
        (upf(functional="PZ"), {}, "made with PZ"),
        (upf(kind="US"), {}, "is not norm-conserving (US)"),
        (upf(electrons=5.0), {}, "one more than C.UPF has would be 6"),
        ("<UPF>", {}, "no UPF file of version 2"),
        (upf(), {"hole_upf": None}, "but none with a core hole"),
        (upf(), {"electrons": 0.5}, "your files are for a full hole"),
        (upf(), {"hole_upf": {**HOLE, "file": "Ch.UPF"}}, "there is no pseudopotential Ch.UPF"),
        (upf(), {"hole_upf": {**HOLE, "radius_a0": 0.9}}, "the pseudo wave 3P is up to"),
    ],
)
def test_files_that_do_not_serve(mine: Path, text: str, overrides: dict[str, Any], message: str) -> None:
    (mine / "C.UPF").write_text(text)
    with pytest.raises(UserError) as caught:
        resolve(**{"upf": {"C": "C.UPF"}, "hole_upf": HOLE, **overrides})
    assert message in str(caught.value)


def test_a_wave_out_of_scale_is_refused(mine: Path) -> None:
    (mine / "C-hole.UPF").write_text(upf(1.3, electrons=5.0))
    with pytest.raises(UserError, match="the pseudo wave 3P is up to 30%") as caught:
        resolve(upf={"C": "C.UPF"}, hole_upf=HOLE)
    assert "ld1.x" in str(caught.value.hint)


def test_what_cutoff_files_of_the_users_need_is_not_guessed(mine: Path) -> None:
    with pytest.raises(UserError, match="only you know"):
        ENGINE.resolve("light", {"upf": {"C": "C.UPF"}, "hole_upf": HOLE}, element="C", edge="K")


def test_a_recipe_serves_no_file_with_a_hole(mine: Path) -> None:
    with pytest.raises(UserError, match="needs a file of C without a hole"):
        resolve(hole_upf=HOLE)


def run(job: Job, folder: Path) -> SiteResult:
    folder.mkdir()
    ENGINE.write(job, folder)
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith("HTXAS_") or k == "HTXAS_QE_PSEUDOS"
    }
    subprocess.run(ENGINE.command(folder), env={**environment, "OMP_NUM_THREADS": "1"}, check=True)
    result = ENGINE.read(job, folder)
    assert isinstance(result, SiteResult)
    return result


@pytest.mark.qe
def test_the_real_espresso_with_files_of_the_users(
    mine: Path, carbon_monoxide: Structure, tmp_path: Path
) -> None:
    recipe = RECIPES["tm-pbe-1"]["C"]
    energies = {}
    for name, hole in (("C", 0.0), ("C-hole", 1.0)):
        text = ld1_input(name, "C", recipe, hole=hole)
        ran = subprocess.run(["ld1.x"], input=text, cwd=mine, capture_output=True, text=True, check=True)
        energies[name] = read_ld1(ran.stdout)
        (mine / f"{name}.UPF").write_text(join_waves((mine / f"{name}.UPF").read_text(), recipe.radius_a0))
    atom_eV = sum(
        sign * (energies[n].all_electron_eV - energies[n].pseudo_eV) for n, sign in (("C-hole", 1), ("C", -1))
    )
    coarse = {"box": {"vacuum_A": 4.0}, "cutoff_Ry": 25.0, "tolerance": 0.01, "window_eV": 25.0}
    results = []
    for name, files in (
        ("theirs", {"upf": {"C": "C.UPF"}, "hole_upf": {**HOLE, "atom_eV": atom_eV}}),
        ("ours", {}),
    ):
        p = ENGINE.resolve("light", {**coarse, **files}, element="C", edge="K")
        atom = carbon_monoxide.indices_of("C")[0]
        site = Calculation(Kind.SITE, carbon_monoxide.key, "qe", p.site, "C", "K", atom)
        results.append(run(Job(site, carbon_monoxide), tmp_path / name))
    theirs, ours = results
    assert theirs.excitation_energy_eV == pytest.approx(ours.excitation_energy_eV, abs=1e-3)
    assert theirs.sticks.isotropic.sum() == pytest.approx(ours.sticks.isotropic.sum(), rel=1e-3)
    assert set(theirs.provenance.extra["pseudopotentials_md5"]) == {"C.UPF", "C-hole.UPF", "O.UPF"}
    p = ENGINE.resolve("light", {**coarse, "upf": {"C": "C.UPF"}, "hole_upf": HOLE}, element="C", edge="K")
    (mine / "C.UPF").write_text(upf())  # another one now
    job = Job(Calculation(Kind.SITE, carbon_monoxide.key, "qe", p.site, "C", "K", 0), carbon_monoxide)
    with pytest.raises(EngineFailure, match="is another file than the one submitted") as caught:
        run(job, tmp_path / "changed")
    assert caught.value.cause is Cause.BAD_INPUT


@pytest.mark.qe
@pytest.mark.parametrize("element", ["B", "C", "N", "O", "F"])
def test_the_waves_of_every_recipe_join(element: str, tmp_path: Path) -> None:
    recipe = RECIPES["tm-pbe-1"][element]
    for name, hole in ((element, 0.0), (f"{element}-half", 0.5), (f"{element}-hole", 1.0)):
        text = ld1_input(name, element, recipe, hole=hole)
        subprocess.run(["ld1.x"], input=text, cwd=tmp_path, capture_output=True, text=True, check=True)
        made = (tmp_path / f"{name}.UPF").read_text()
        assert read_upf(made).electrons == pytest.approx(sum(c[2] for c in recipe.channels) + hole)
        misfits = wave_misfits(join_waves(made, recipe.radius_a0), recipe.radius_a0)
        assert max(misfits.values()) < 0.02, name
