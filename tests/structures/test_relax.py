from __future__ import annotations

import sys

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.emt import EMT

from htxas.errors import StructureError, UserError
from htxas.structures.relax import XtbRelaxer, relax_with


def relaxed_water(**options):
    water = molecule("H2O")
    return XtbRelaxer(**options).relax(water.get_chemical_symbols(), water.positions, where="w.xyz")


@pytest.mark.xtb
def test_water_with_gfn2() -> None:
    result = relaxed_water(fmax_eV_per_A=0.005)
    bond = np.linalg.norm(result.positions_A[0] - result.positions_A[1])
    assert bond == pytest.approx(0.959, abs=0.003)
    assert result.energy_eV == pytest.approx(-5.0704 * 27.2114, abs=0.01)
    assert result.fmax_eV_per_A <= 0.005
    assert result.steps > 0
    assert result.method == "GFN2-xTB"
    assert result.program.startswith("tblite ")


@pytest.mark.xtb
def test_relaxation_is_repeatable_to_the_digit() -> None:
    assert (relaxed_water().positions_A == relaxed_water().positions_A).all()


@pytest.mark.xtb
def test_not_converged_is_an_error() -> None:
    with pytest.raises(
        StructureError, match=r"w\.xyz: GFN2-xTB relaxation not converged in 1 steps: largest force"
    ):
        relaxed_water(max_steps=1, fmax_eV_per_A=1e-6)


@pytest.mark.xtb
def test_atoms_that_tblite_refuses() -> None:
    with pytest.raises(StructureError, match=r"q\.xyz: GFN2-xTB fails on this geometry"):
        XtbRelaxer().relax(["Lr", "H"], np.array([(0, 0, 0), (0, 0, 1.8)]), where="q.xyz")


def test_without_openmp_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite.library", None)
    with pytest.raises(UserError, match=r"w\.xyz: tblite cannot be loaded: .*libgomp1"):
        relaxed_water()


def test_any_ase_calculator_will_do() -> None:
    pair = np.array([(0.0, 0, 0), (0, 0, 2.6)])
    result = relax_with(
        EMT(), ["Cu", "Cu"], pair, method="EMT", program="ASE", fmax_eV_per_A=0.01, max_steps=100
    )
    assert np.linalg.norm(result.positions_A[1] - result.positions_A[0]) < 2.6
    assert pair[1, 2] == 2.6  # the caller's array stays as it was


class Failing(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        raise CalculationFailed("SCF not converged\nin 250 cycles")


def test_failing_calculator_is_one_line() -> None:
    with pytest.raises(
        StructureError, match="DFT fails on this geometry: SCF not converged in 250 cycles"
    ) as caught:
        relax_with(
            Failing(), ["H", "H"], np.array([(0.0, 0, 0), (0, 0, 0.8)]),
            method="DFT", program="x", fmax_eV_per_A=0.01, max_steps=5,
        )  # fmt: skip
    assert "\n" not in str(caught.value)
