"""Against genuine outputs of CASTEP 20.1: OptaDOS's Ge K edge of NaGe, read where they lie, not committed.

Numbers of OptaDOS itself are from a build of ours (gfortran), given the same files; it reproduces its own benchmark of
this case to 1e-12 there.
"""

from __future__ import annotations

import bz2
import hashlib
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.calculation import Convergence
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import SiteResult
from htxas.domain.spectrum import dsf_A2
from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A, HARTREE_EV
from htxas.engines.base import Job
from htxas.engines.castep.bands import OutputError, read_bands
from htxas.engines.castep.binary import parse_elnes_fmt, read_core_elements
from htxas.engines.castep.engine import ENGINE
from htxas.engines.castep.log import CastepLog, read_log
from htxas.engines.castep.process import state_key
from htxas.engines.castep.spectrum import transition_energy, transitions
from htxas.engines.castep.write import extra_bands
from htxas.engines.cells import Supercell
from htxas.errors import EngineFailure
from tests.engines.castep.conftest import make_job
from tests.engines.castep.synthetic import Run, bands_text, elnes_bin, header, log_text, record

FIXTURES = Path(__file__).parents[4] / "shared/fixtures/castep_nage_coreloss"
pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no genuine CASTEP files beside the checkout")


OPTADOS = (
    (0.5067499486509348, 8.795453921587904e-07),
    (1.0068568776500797, 2.0578617963443813e-06),
    (2.0070707356483695, 2.308292026314932e-06),
    (4.007498451644949, 4.189262121081192e-10),
    (6.0079261676415285, 1.0771164051222144e-21),
    (10.008781599634688, 2.1449724305740577e-08),
    (12.509316244630412, 1.8315620835521694e-07),
    (15.009850889626136, 1.875241875335175e-07),
    (18.010492463621006, 1.8664469383784758e-07),
)
"""Energies from the cell's zero, eV, and epsilon_2, as OptaDOS wrote them."""


def text_of(name: str) -> str:
    path = FIXTURES / name
    return bz2.decompress(path.read_bytes()).decode() if path.suffix == ".bz2" else path.read_text()


@pytest.fixture(scope="module")
def excited() -> CastepLog:
    return read_log(text_of("NaGe.castep"))


@pytest.fixture(scope="module")
def ground() -> CastepLog:
    return read_log(text_of("NaGe-singlepoint.castep"))


def test_the_log_of_the_hole(excited: CastepLog) -> None:
    assert (excited.version, excited.finished, excited.convergence) == ("20.1", True, Convergence.CONVERGED)
    assert (excited.cycles, excited.electrons, excited.charge, excited.cutoff_eV) == (11, 58, 1, 250)
    assert (excited.final_eV, excited.free_eV) == (-12847.47434910, -12847.55640007)
    assert excited.zero_kelvin_eV == -12847.51537458
    assert (excited.total_s, excited.title) == (26.35, "")
    assert excited.configurations["Ge:exc"] == "1s1 2s2 2p6 3s2 3p6 3d10 4s2 4p2"
    assert excited.pseudopotentials["Ge:exc"] == "3|1.5|13|15|17|30U:31U:32:40:41(qc=6){1s1}"
    assert [(a.label, a.species, a.rank) for a in excited.atoms][3:] == [("Na", 1, 4), ("Ge:exc", 2, 1)]


def test_the_transition_energy(ground: CastepLog, excited: CastepLog) -> None:
    """OptaDOS's tool says 11142.28 eV, its test case 11142.275222: with the energies at 0 K."""
    labels = {"ground_label": "Ge", "excited_label": "Ge:exc"}
    scale = transition_energy(ground, excited, **labels, which="zero_kelvin")
    assert scale.transition_eV == pytest.approx(11142.275222, abs=1e-6)
    assert scale.core_eV == pytest.approx(12141.3017, abs=1e-6)
    final = transition_energy(ground, excited, **labels, which="final")
    assert final.transition_eV == pytest.approx(11142.287553, abs=1e-6)
    with pytest.raises(OutputError, match=r"isolated atom Ge:ex$"):
        transition_energy(ground, excited, ground_label="Ge", excited_label="Ge:ex", which="final")


def test_levels() -> None:
    bands = read_bands(text_of("NaGe.bands.bz2"))
    assert bands.levels_eV.shape == (4, 65)
    assert (bands.electrons, bands.first_empty) == (58, 29)
    assert bands.fermi_eV == pytest.approx(0.6288, abs=1e-4)
    assert bands.gap_eV == pytest.approx(0.2037, abs=1e-4)
    assert np.array_equal(bands.final_states(), bands.levels_eV > bands.fermi_eV)


def test_the_spectrum_is_the_one_of_optados() -> None:
    """Ge K1 of ``NaGe_core_edge.dat``: BROADENING fixed, FIXED_SMEARING 0.5, EFERMI file, CORE_TYPE absorption.

    OptaDOS gives epsilon_2: matrix elements averaged over directions, both spins, levels above the Fermi level.
    """
    bands = read_bands(text_of("NaGe.bands.bz2"))
    squared = parse_elnes_fmt(text_of("NaGe.elnes_fmt.bz2")).squared_1s(2, 1)
    sticks, window = transitions(bands, squared, 11142.275222)
    assert len(sticks.energies_eV) == 141
    assert window == pytest.approx(22.013, abs=1e-3)
    assert sticks.energies_eV[0] == 11142.275222
    lowest = bands.levels_eV[bands.final_states()].min()
    eigenvalues = sticks.energies_eV - sticks.energies_eV[0] + lowest
    volume = abs(np.linalg.det(bands.cell_A))
    unit = 1.602176487e-19 * np.pi * 1e-20 / (volume * 1e-30 * 8.8541878176e-12)
    weight = 2 * dsf_A2(sticks).mean(axis=1)  # k weights are in it
    for energy, theirs in OPTADOS:
        ours = unit * weight @ np.exp(-0.5 * ((energy - eigenvalues) / 0.5) ** 2) / 0.5 / np.sqrt(2 * np.pi)
        assert ours == pytest.approx(theirs, rel=1e-6)


def test_the_binary_form_is_that_of_od2od(tmp_path: Path) -> None:
    """``od2od -i elnes_fmt -o elnes_bin`` of OptaDOS makes this very file of the formatted one."""
    text = text_of("NaGe.elnes_fmt.bz2")
    genuine = parse_elnes_fmt(text)
    path = tmp_path / "NaGe.elnes_bin"
    orbitals = list(zip(genuine.species, genuine.rank, genuine.shell, genuine.channel, strict=True))
    words = text.splitlines()[1]
    elnes_bin(path, orbitals, genuine.elements_Bohr, header(words.rstrip()))
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == "bb771213d5dc4d384de6b4d7beff9ea98777a8b185ada4492303545c66995c1f"
    )
    again = read_core_elements(path)
    assert np.array_equal(again.elements_Bohr, genuine.elements_Bohr)
    assert len(record(b"")) == 8


def test_the_strengths_are_absolute() -> None:
    """From the edge to 22 eV they average to 1.25 of the free atom's jump, and approach it at the end.

    The K jump of germanium is 169.4 cm^2/g (Elam, Ravel and Sieber, Radiat. Phys. Chem. 63, 121 (2002)), which is
    1.86e-4 oscillator strengths per eV (1.0976e-16 cm^2 eV each).
    """
    bands = read_bands(text_of("NaGe.bands.bz2"))
    squared = parse_elnes_fmt(text_of("NaGe.elnes_fmt.bz2")).squared_1s(2, 1)
    sticks, _ = transitions(bands, squared, 11142.275222)
    atom = 169.4 * 72.63 / 6.02214076e23 / 1.0976e-16
    above = sticks.energies_eV - sticks.energies_eV[0]
    assert sticks.isotropic.sum() / above[-1] / atom == pytest.approx(1.25, abs=0.02)
    last = above > 15
    assert sticks.isotropic[last].sum() / (above[-1] - 15) / atom == pytest.approx(0.9, abs=0.1)


@pytest.fixture
def sodium_germanide() -> tuple[Job, Structure]:
    """OptaDOS's example as a calculation of ours: one cell, CASTEP's own mesh of 2 x 2 x 2, 250 eV; but neutral."""
    from ase.io.castep import read_castep_cell

    with warnings.catch_warnings(), (FIXTURES / "NaGe.cell").open() as file:
        warnings.simplefilter("ignore", UserWarning)  # ASE has no list of CASTEP's keywords
        atoms = read_castep_cell(file)
    structure, _ = Structure.from_atoms(atoms.get_chemical_symbols(), atoms.positions, atoms.cell.array)
    job = make_job(
        structure,
        "Ge",
        "crystal",
        supercell={"repeats": [1, 1, 1]},
        kpoints={"divisions": [2, 2, 2], "shifted": True},
        cutoff_eV=250,
    )
    return job, structure


def test_our_inputs_are_the_genuine_ones(sodium_germanide: tuple[Job, Structure], tmp_path: Path) -> None:
    job, _ = sodium_germanide
    ENGINE.write(job, tmp_path)
    ours = (tmp_path / "site.cell").read_text()
    for line in ("Na 2|1.3|14|16|18|20U:30:21(qc=7)", "Ge:ex 3|1.5|13|15|17|30U:31U:32:40:41(qc=6){1s1}"):
        assert line in ours
        assert line.replace("Ge:ex ", "Ge:exc ") in text_of("NaGe.cell")
    assert "KPOINTS_MP_GRID : 2 2 2\n" in ours
    assert "OFFSET" not in ours
    genuine = dict(line.split(" : ") for line in text_of("NaGe.param").splitlines())
    param = dict(line.split(" : ") for line in (tmp_path / "site.param").read_text().splitlines())
    for name in ("task", "spectral_task", "cut_off_energy", "xc_functional"):
        assert param[name.upper()].lower() == genuine[name].strip().lower()
    assert (float(param["CHARGE"]), float(genuine["charge"])) == (0, 1)


def test_a_calculation_read_from_genuine_files(
    sodium_germanide: tuple[Job, Structure], tmp_path: Path
) -> None:
    """From ``ENGINE.read``; changed are the label ``Ge:exc``, empty titles, at last charge and electrons.

    The example has the excited electron removed, which is refused: its first final state is not at the difference of
    total energies. With those changed, everything else is read as it would be.
    """
    job, _ = sodium_germanide
    ENGINE.write(job, tmp_path)
    for name, seed, key in (
        ("NaGe", "site", job.calculation.key),
        ("NaGe-singlepoint", "ground", state_key(job)),
    ):
        text = text_of(f"{name}.castep").replace("Ge:exc", "Ge:ex")
        head, mark, tail = text.partition(" Title ")
        first, _, rest = tail.partition("\n")
        (tmp_path / f"{seed}.castep").write_text(f"{head}{mark}{first}\n htxas {key}\n{rest}")
    (tmp_path / "site.bands").write_text(text_of("NaGe.bands.bz2"))
    (tmp_path / "site.elnes_fmt").write_text(text_of("NaGe.elnes_fmt.bz2"))
    outcome = {"status": "ran", "key": job.calculation.key, "host": "", "started": "", "ended": ""}
    outcome |= {"wall_s": 26.35, "cpu_s": 26.35, "inputs_sha256": {}, "program": [], "steps_s": {}}
    (tmp_path / "outcome.json").write_text(json.dumps(outcome))
    with pytest.raises(EngineFailure, match=r"the cell had the charge 1\.0"):
        ENGINE.read(job, tmp_path)
    log = tmp_path / "site.castep"
    log.write_text(log.read_text().replace(": +1.000", ":  0.000"))
    with pytest.raises(EngineFailure, match=r"58\.0 electrons with the hole and 58\.0 without: not one more"):
        ENGINE.read(job, tmp_path)
    for name, old, new in (
        ("site.castep", ":  58.00", ":  59.00"),
        ("site.bands", "electrons  58", "electrons  59"),
    ):
        text = (tmp_path / name).read_text()
        assert text.count(old) == 1
        (tmp_path / name).write_text(text.replace(old, new))
    result = ENGINE.read(job, tmp_path)
    assert isinstance(result, SiteResult)
    assert result.excitation_energy_eV == pytest.approx(11142.275222, abs=1e-6)
    assert result.energies_eV["ground"] == -11848.48889652
    assert len(result.sticks.energies_eV) == 141
    assert result.provenance.engine_version == "20.1"
    assert inspect(result, GateLimits(), element="Ge", edge="K") is None  # 1.25 of what the bare atom absorbs


def test_bands_cover_the_window(sodium_germanide: tuple[Job, Structure]) -> None:
    """36 empty bands reach 22.0 eV above the first."""
    _, structure = sodium_germanide
    assert 36 < extra_bands(Supercell(repeats=(1, 1, 1)).build(structure), 22.0) < 72


def test_what_tells_that_the_levels_went_well(excited: CastepLog, ground: CastepLog) -> None:
    assert (excited.matrix_elements, ground.matrix_elements) == (True, False)
    text = text_of("NaGe.castep")
    banner = "  Starting k-point:        1 of        1"
    found = read_log(text.replace(banner, f" Warning: band structure not converged\n{banner}"))
    assert (found.convergence, found.finished) == (Convergence.UNCONVERGED, True)


def shape(line: str) -> str:
    return re.sub(r"\d", "0", re.sub("[-+]", " ", line))


def test_synthetic_files_have_the_genuine_layout(excited: CastepLog) -> None:
    text = text_of("NaGe.castep")
    bands = read_bands(text_of("NaGe.bands.bz2"))
    run = Run(
        title="",
        labels=[a.label for a in excited.atoms],
        fractional=np.array([a.fractional for a in excited.atoms]),
        strings=excited.pseudopotentials,
        all_electron_eV=excited.all_electron_eV,
        pseudo_eV=excited.pseudo_eV,
        configurations=excited.configurations,
        valences={"Na": "2s2 2p6 3s1", "Ge:exc": "3s2 3p6 3d10 4s2 4p2"},
        final_eV=excited.final_eV or 0.0,
        entropy_eV=(excited.final_eV or 0.0) - (excited.free_eV or 0.0),
        electrons=58,
        charge=1,
        cutoff_eV=250,
    )
    genuine = {line.rstrip() for line in text.splitlines()}
    written = [line.rstrip() for line in log_text(run).splitlines()]
    shapes = {shape(line) for line in genuine}
    strange = [line for line in written if shape(line) not in shapes]
    assert strange == []
    different = [line for line in written if line not in genuine]
    assert all("<-- SCF" in line or "iterations to a" in line or "0K energy" in line for line in different)
    assert bands_text(
        bands.kpoints,
        bands.weights,
        bands.levels_eV / HARTREE_EV,
        bands.electrons,
        bands.fermi_eV / HARTREE_EV,
        bands.cell_A / BOHR_A,
    ) == text_of("NaGe.bands.bz2")


def test_files_that_are_cut_short(tmp_path: Path) -> None:
    text = text_of("NaGe.bands.bz2")
    with pytest.raises(OutputError, match=r"\.bands has 200 lines"):
        read_bands("\n".join(text.splitlines()[:200]))
    with pytest.raises(OutputError, match=r"elnes_fmt is cut short"):
        parse_elnes_fmt(text_of("NaGe.elnes_fmt.bz2")[:500_000])
    half = read_log(text_of("NaGe.castep")[:15_000])
    assert (half.finished, half.convergence) == (False, Convergence.UNKNOWN)
