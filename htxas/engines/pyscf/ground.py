"""Ground state of a molecule: energies, dipole, localised cores, projected DOS."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyscf import gto, scf

from htxas.domain.structure import Structure
from htxas.domain.units import AU_DEBYE, HARTREE_EV
from htxas.engines.pyscf.molecule import build, core_orbitals, loewdin_weights
from htxas.engines.pyscf.scf import PLAIN, Aids, At, Hamiltonian, KohnSham, helped, plainly, solve

__all__ = ["GroundState", "Kept", "dipole_D", "load", "pdos_arrays", "run", "save"]

FloatArray = npt.NDArray[np.float64]
_PDOS_ABOVE_LUMO_EV = 40.0
_START = "minao"


@dataclass(frozen=True, slots=True, eq=False)
class GroundState:
    """A converged (or not) ground state and everything its sites share.

    Attributes
    ----------
    hamiltonian
        Integrals, fitting tensor, grid.
    state
        The Kohn-Sham state.
    core_atoms
        Canonical indices of the absorbing element.
    cores
        Their localised 1s orbitals, shape (nao, len(core_atoms)).
    aided
        If the plain iteration failed and aids found the state: what provenance tells of it, JSON-able.
    """

    hamiltonian: Hamiltonian
    state: KohnSham
    core_atoms: tuple[int, ...]
    cores: FloatArray
    aided: Mapping[str, Any] | None = None

    @property
    def n_occupied(self) -> int:
        """Doubly occupied orbitals."""
        return int(self.hamiltonian.mol.nelectron // 2)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A ground state that was kept: the Kohn-Sham state, and :attr:`GroundState.aided`."""

    state: KohnSham
    aided: Mapping[str, Any] | None


def run(
    structure: Structure,
    parameters: Mapping[str, Any],
    *,
    guess: Kept | None = None,
    aids: Aids = PLAIN,
    start_from: str = _START,
    at: At = plainly,
    memory_MB: float | None = None,
) -> GroundState:
    """Compute the closed-shell ground state, or take ``guess`` as its state and rebuild the integrals.

    Parameters
    ----------
    structure, parameters
        What to compute.
    guess
        A converged state.
    aids, start_from
        Of a correction; used only if the plain iteration fails. The density to start from is ``minao`` or ``huckel``,
        as PySCF calls them.
    at
        Of an attempt that was cut short; phases ``plain`` and ``aided``.
    memory_MB
        What the process may use.
    """
    mol = build(structure, parameters)
    hamiltonian = _hamiltonian(mol, parameters, memory_MB)
    occupied = mol.nelectron // 2

    def aufbau(orbitals: Sequence[FloatArray]) -> list[FloatArray]:
        occupations = np.zeros(orbitals[0].shape[1])
        occupations[:occupied] = 2.0
        return [occupations]

    def iterate(given: Aids, first: str) -> KohnSham:
        return solve(
            hamiltonian,
            [_scaled_orbitals(_first_density(mol, first), hamiltonian.overlap)],
            aufbau,
            energy_tolerance=parameters["energy_tolerance_Ha"],
            gradient_tolerance=parameters["gradient_tolerance_Ha"],
            max_cycles=parameters["max_cycles"],
            aids=given,
        )

    aided = None
    if guess is not None:
        state, aided = guess.state, guess.aided
    else:
        state = iterate(at(PLAIN, "plain"), _START)
        if not state.converged and (aids.any or start_from != _START):
            plain, state = state, iterate(at(aids, "aided"), start_from)
            same_way = aids.only_longer and start_from == _START
            aided = helped(plain, {"plain": plain.energy}, state, same_way=same_way).told(state.energy)
    atoms = structure.indices_of(parameters["core_element"])
    cores = core_orbitals(mol, hamiltonian.overlap, state.orbitals[0][:, :occupied], atoms)
    return GroundState(hamiltonian, state, atoms, cores, aided)


def _first_density(mol: gto.Mole, name: str) -> FloatArray:
    if name == "minao":
        return np.asarray(scf.hf.init_guess_by_minao(mol))
    with warnings.catch_warnings():  # its atoms call a function that PySCF itself has given up
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(scf.hf.init_guess_by_huckel(mol))


def _hamiltonian(mol: gto.Mole, parameters: Mapping[str, Any], memory_MB: float | None) -> Hamiltonian:
    return Hamiltonian(
        mol,
        xc=parameters["functional"],
        grid_level=parameters["grid_level"],
        auxiliary=parameters["auxiliary_basis"],
        memory_MB=memory_MB,
    )


def _scaled_orbitals(density: FloatArray, overlap: FloatArray) -> FloatArray:
    """Factor a density matrix: natural orbitals times the square root of their occupation."""
    values, vectors = np.linalg.eigh(overlap)
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    occupations, natural = np.linalg.eigh(root @ np.asarray(density) @ root)
    keep = occupations > 1e-8
    return np.asarray(inverse @ natural[:, keep] * np.sqrt(occupations[keep]))


def dipole_D(ground: GroundState) -> FloatArray:
    """Return the dipole moment in Debye, shape (3,)."""
    mol = ground.hamiltonian.mol
    density = ground.state.density()[0]
    electrons = np.einsum("xij,ji->x", mol.intor_symmetric("int1e_r", comp=3), density)
    nuclei = np.einsum("i,ix->x", mol.atom_charges(), mol.atom_coords())
    return np.asarray((nuclei - electrons) * AU_DEBYE)


def pdos_arrays(ground: GroundState) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return levels (eV), occupations and Loewdin weights up to 40 eV above the LUMO."""
    levels = ground.state.levels[0] * HARTREE_EV
    keep = levels <= levels[ground.n_occupied] + _PDOS_ABOVE_LUMO_EV
    weights = loewdin_weights(
        ground.hamiltonian.mol, ground.hamiltonian.overlap, ground.state.orbitals[0][:, keep]
    )
    return levels[keep], ground.state.occupations[0][keep], weights


def save(ground: GroundState, path: Path, key: str) -> None:
    """Keep the state's orbitals, under the calculation's key, so that a site can start from them elsewhere."""
    state = ground.state
    np.savez(
        path,
        key=key,
        energy=state.energy,
        orbitals=state.orbitals[0],
        levels=state.levels[0],
        occupations=state.occupations[0],
        converged=state.converged,
        cycles=state.cycles,
        gradient=state.gradient,
        aided=json.dumps(ground.aided),
    )


def load(path: Path, key: str) -> Kept | None:
    """Read a state written by :func:`save`; None if the file is absent, damaged or another calculation's."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            if str(data["key"]) != key or not bool(data["converged"]):
                return None
            state = KohnSham(
                float(data["energy"]),
                (data["orbitals"],),
                (data["levels"],),
                (data["occupations"],),
                True,
                int(data["cycles"]),
                float(data["gradient"]),
            )
            return Kept(state, json.loads(str(data["aided"])) if "aided" in data.files else None)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
