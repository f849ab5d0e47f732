"""Our own loops against PySCF's, which share neither the grid cache nor the fitting of the enlarged basis."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.structure import Structure
from htxas.engines.pyscf import corehole, final_states, ground
from htxas.engines.pyscf.molecule import build, diffuse, loewdin_weights
from htxas.engines.pyscf.parameters import resolve
from htxas.engines.pyscf.process import _refuse_shake_up
from htxas.engines.pyscf.xcgrid import XCGrid
from htxas.errors import EngineFailure
from tests.engines.pyscf.conftest import molecule

pytestmark = pytest.mark.pyscf
PBE = resolve("published", {}, element="C", edge="K")


@pytest.fixture(scope="module")
def formaldehyde() -> ground.GroundState:
    return ground.run(molecule("formaldehyde"), PBE.ground)


def reference(functional: str, level: int) -> object:
    from pyscf import dft

    mf = (
        dft.RKS(build(molecule("formaldehyde"), PBE.ground))
        .density_fit(auxbasis="def2-universal-jfit")
        .sfx2c1e()
    )
    mf.xc, mf.grids.level, mf.conv_tol = functional, level, 1e-9
    mf.kernel()
    return mf


@pytest.mark.parametrize(("functional", "level"), [("PBE", 1), ("r2SCAN", 2)])
def test_ground_state_is_that_of_pyscf(functional: str, level: int) -> None:
    parameters = {**PBE.ground, "functional": functional, "grid_level": level}
    ours = ground.run(molecule("formaldehyde"), parameters)
    theirs = reference(functional, level)
    assert ours.state.converged
    assert ours.state.energy == pytest.approx(theirs.e_tot, abs=2e-6)  # Hartree: 0.05 meV
    np.testing.assert_allclose(ours.state.levels[0][:20], theirs.mo_energy[:20], atol=1e-4)  # SCF limits
    np.testing.assert_allclose(ground.dipole_D(ours), theirs.dip_moment(verbose=0), atol=2e-3)


def test_cached_single_precision_matches_double(formaldehyde: ground.GroundState) -> None:
    from pyscf import dft

    grid = formaldehyde.hamiltonian.grid
    scaled = formaldehyde.state.scaled()
    energy, derivative = grid.potential(grid.density(scaled))
    assert energy == pytest.approx(grid.energy(scaled), abs=2e-6)
    grids = dft.gen_grid.Grids(formaldehyde.hamiltonian.mol)
    grids.coords, grids.weights = grid.coords, grid.weights
    _, theirs, matrix = dft.numint.NumInt().nr_rks(
        formaldehyde.hamiltonian.mol, grids, "PBE", formaldehyde.state.density()[0]
    )
    assert energy == pytest.approx(theirs, abs=2e-6)
    np.testing.assert_allclose(grid.matrix(derivative)[0], matrix, atol=2e-5)


def test_grid_without_cache_gives_the_same(formaldehyde: ground.GroundState) -> None:
    small = XCGrid(formaldehyde.hamiltonian.mol, "PBE", 1, max_cache_bytes=1.0)
    rho = small.density(formaldehyde.state.scaled())
    np.testing.assert_array_equal(rho, formaldehyde.hamiltonian.grid.density(formaldehyde.state.scaled()))


def test_hybrids_are_refused(formaldehyde: ground.GroundState) -> None:
    with pytest.raises(ValueError, match="pure GGA"):
        XCGrid(formaldehyde.hamiltonian.mol, "PBE0", 1)


@pytest.mark.parametrize("functional", ["PBE", "r2SCAN"])
def test_enlarged_potential_is_that_of_pyscf(functional: str) -> None:
    """The potential in SCF + diffuse functions, against PySCF on the same grid with the whole basis at once."""
    from pyscf import df, dft, scf

    base = ground.run(molecule("formaldehyde"), {**PBE.ground, "functional": functional})
    half = corehole.transition_potential(base, 0, PBE.ground)
    mol = base.hamiltonian.mol
    extra = diffuse(mol, base.core_atoms[0], smallest=0.02, largest=1.0, ratio=2.0)
    both = mol + extra
    ours = final_states._fock(base.hamiltonian, half, extra, both)
    density = np.zeros((both.nao, both.nao))
    density[: mol.nao, : mol.nao] = half.state.density()[0]
    grids = dft.gen_grid.Grids(mol)
    grids.coords, grids.weights = base.hamiltonian.grid.coords, base.hamiltonian.grid.weights
    vxc = dft.numint.NumInt().nr_rks(both, grids, functional, density)[2]
    fit = df.DF(both)
    fit.auxmol = base.hamiltonian.fit.auxmol
    integrals = df.incore.aux_e2(both, fit.auxmol, "int3c2e", aosym="s1")
    metric = fit.auxmol.intor("int2c2e")
    coulomb = integrals @ np.linalg.solve(metric, np.einsum("ijP,ij->P", integrals, density))
    theirs = scf.hf.SCF(both).sfx2c1e().get_hcore() + coulomb + vxc
    np.testing.assert_allclose(ours, theirs, atol=3e-5)


def test_symmetric_carbons_get_localised_equal_holes() -> None:
    base = ground.run(molecule("ethyne"), PBE.ground)
    energies = []
    for site in (0, 1):
        half = corehole.transition_potential(base, site, PBE.ground)
        cation = corehole.ion(base, half, site, PBE.ground)
        energies.append(cation.state.energy)
        hole = cation.state.orbitals[1][:, [cation.hole]]
        weights = loewdin_weights(base.hamiltonian.mol, base.hamiltonian.overlap, hole)
        assert cation.overlap > 0.99
        assert weights[0, base.core_atoms[site], 0] > 0.97
    assert energies[0] == pytest.approx(energies[1], abs=1e-5)


def test_ion_is_that_of_pyscf(formaldehyde: ground.GroundState) -> None:
    """Delta-KS with PySCF's own UKS, hole kept by overlap with the ground-state core."""
    from pyscf import dft

    half = corehole.transition_potential(formaldehyde, 0, PBE.ground)
    ours = corehole.ion(formaldehyde, half, 0, PBE.ground)
    mf = dft.UKS(formaldehyde.hamiltonian.mol).density_fit(auxbasis="def2-universal-jfit").sfx2c1e()
    mf.xc, mf.grids.level, mf.conv_tol = "PBE", 1, 1e-8
    target = formaldehyde.cores[:, 0] @ formaldehyde.hamiltonian.overlap
    n = formaldehyde.n_occupied

    def get_occ(mo_energy: object = None, mo_coeff: object = None) -> np.ndarray:
        occupations = np.zeros((2, mo_coeff[0].shape[1]))
        occupations[0, :n] = 1
        hole = int(np.abs(target @ mo_coeff[1]).argmax())
        occupations[1, [i for i in range(n) if i != hole]] = 1
        return occupations

    mf.get_occ = get_occ
    c = formaldehyde.state.orbitals[0][:, :n]
    core = int(np.abs(target @ c).argmax())
    mf.kernel(np.array([c @ c.T, np.delete(c, core, 1) @ np.delete(c, core, 1).T]))
    assert ours.state.converged
    assert ours.state.energy == pytest.approx(mf.e_tot, abs=5e-6)


@pytest.mark.slow
def test_an_ion_whose_lone_pairs_slosh_is_followed() -> None:
    """Lone pairs of two oxygens meet at one level: filling the lowest fails, following the occupied space does not."""
    data = json.loads((Path(__file__).parent / "sloshing.json").read_text())
    structure, _ = Structure.from_atoms(data["symbols"], data["positions_A"])
    base = ground.run(structure, PBE.ground)
    site = base.core_atoms.index(data["atom"])
    half = corehole.transition_potential(base, site, PBE.ground)
    cation = corehole.ion(base, half, site, PBE.ground)
    assert cation.followed
    assert cation.is_kept
    assert cation.state.converged
    assert cation.overlap > 0.99
    assert (cation.state.energy - base.state.energy) * 27.2114 == pytest.approx(292.8, abs=0.3)


def test_a_state_that_lost_electrons_is_refused(formaldehyde: ground.GroundState) -> None:
    """A converged shake-up state looks healthy in every other number; it must not become a result."""
    half = corehole.transition_potential(formaldehyde, 0, PBE.ground)
    cation = corehole.ion(formaldehyde, half, 0, PBE.ground)
    assert cation.electrons_lost < 0.3
    _refuse_shake_up({"ion": cation})
    with pytest.raises(EngineFailure, match=r"shake-up state: 1\.03 electrons"):
        _refuse_shake_up({"ion": replace(cation, electrons_lost=1.03)})
