from __future__ import annotations

import numpy as np
import pytest

from htxas.errors import StructureError
from htxas.structures.smiles import broken_bond, embed, parse_smiles


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("", "empty SMILES"),
        ("not a smiles", "not a valid SMILES"),
        ("C(C)(C)(C)(C)C", "not a valid SMILES"),
        ("c1cccc1", "not a valid SMILES"),
        ("[CH3]", "unpaired electrons"),
        ("[O][O]", "unpaired electrons"),
        ("C.C", "more than one molecule"),
        ("[Na+].[Cl-]", "more than one molecule"),
        ("C[NH3+]", r"charge of \+1"),
        ("CC(=O)[O-]", "charge of -1"),
        ("C*", "unknown element"),
    ],
)
def test_unfit_smiles(smiles: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StructureError, match=message) as caught:
        parse_smiles(smiles, where="a.smi, line 3")
    assert str(caught.value).startswith("a.smi, line 3: ")
    assert capfd.readouterr().err == ""  # RDKit's own log is not for our users


def test_spellings_of_one_molecule_are_one() -> None:
    assert len({parse_smiles(s).canonical for s in ("CCO", "OCC", "C(O)C", "[CH3]CO")}) == 1
    assert parse_smiles("CN(=O)=O").canonical == parse_smiles("C[N+](=O)[O-]").canonical
    assert parse_smiles("C[C@H](N)C(=O)O").canonical != parse_smiles("C[C@@H](N)C(=O)O").canonical


@pytest.mark.parametrize("smiles", ["CCO", "OCC", "C(O)C", "C(=O)(N)C#N", "OC1CC1N", "[H]C([H])([H])F"])
def test_order_leads_back_to_the_given_atoms(smiles: str) -> None:
    from rdkit import Chem

    parsed = parse_smiles(smiles)
    given = Chem.AddHs(Chem.MolFromSmiles(smiles))
    canonical = Chem.AddHs(Chem.MolFromSmiles(parsed.canonical))
    assert sorted(parsed.order) == list(range(given.GetNumAtoms()))
    bonds = {
        frozenset((parsed.order[b.GetBeginAtomIdx()], parsed.order[b.GetEndAtomIdx()]))
        for b in canonical.GetBonds()
    }
    assert bonds == {frozenset((b.GetBeginAtomIdx(), b.GetEndAtomIdx())) for b in given.GetBonds()}
    for k, atom in enumerate(canonical.GetAtoms()):
        assert given.GetAtomWithIdx(parsed.order[k]).GetSymbol() == atom.GetSymbol()


def test_embedding_is_repeatable() -> None:
    first, second = (embed("CCCO", conformers=5, seed=1) for _ in range(2))
    assert (first.positions_A == second.positions_A).all()
    assert first.force_field == "MMFF94"
    assert first.symbols == ("C", "C", "C", "O", *"HHHHHHHH")
    assert len(first.bonds) == 11


def test_the_lowest_conformer_is_taken() -> None:
    few, many = embed("CCCCO", conformers=1, seed=3), embed("CCCCO", conformers=12, seed=3)
    assert many.energy_kcal_mol <= few.energy_kcal_mol


def test_open_stereo_is_counted() -> None:
    assert embed("CC(N)O", conformers=1, seed=1).unspecified_stereo == 1
    assert embed("C[C@H](N)O", conformers=1, seed=1).unspecified_stereo == 0
    assert embed("CC=CC", conformers=1, seed=1).unspecified_stereo == 1


def test_elements_without_mmff_are_ranked_by_uff() -> None:
    assert embed("CB(C)C", conformers=2, seed=1).force_field == "UFF"


def test_impossible_cage_is_an_error() -> None:
    with pytest.raises(StructureError, match=r"a\.smi: no conformer"):  # trans-fused bicyclobutane
        embed("C1[C@H]2C[C@@H]12", conformers=1, seed=1, where="a.smi")


def test_broken_and_new_bonds() -> None:
    water = ("O", "H", "H")
    positions = np.array([(0, 0, 0.119), (0, 0.763, -0.477), (0, -0.763, -0.477)])
    bonds = ((0, 1), (0, 2))
    assert broken_bond(water, positions, bonds) is None
    far = positions.copy()
    far[1] *= 2
    assert broken_bond(water, far, bonds) == "the bond O0-H1 has broken"
    near = positions.copy()
    near[2] = near[1] + (0, 0.6, 0)
    assert broken_bond(water, near, ((0, 1),)) == "the bond H1-H2 has formed"
