from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.errors import CampaignFileError, HtxasError, StructureError, UnsupportedInput, UserError

Write = Callable[..., Path]


def test_molecules_sites_and_what_is_left_out(write: Write) -> None:
    with Plan(load_campaign(write())) as plan:
        s = plan.survey
        assert (s.molecules, s.sites, s.atoms) == (3, 3, 4)
        assert s.without_element.names == ["nitrogen"]
        molecules = list(plan.molecules())
        again = list(plan.molecules())
    assert [m.molecule.name for m in molecules] == ["methane", "ethyne", "hcn"]
    ethyne = molecules[1]
    assert ethyne.molecule.sites[0].multiplicity == 2
    assert ethyne.molecule.sites[0].equivalent_file_atoms == (0, 1)
    assert [m.ground.calculation.key for m in again] == [m.ground.calculation.key for m in molecules]
    assert sum(p.estimate_s for m in molecules for p in (m.ground, *m.sites)) == pytest.approx(s.estimate_s)


def test_file_atoms_are_those_of_the_file(write: Write) -> None:
    with Plan(load_campaign(write())) as plan:
        hcn = list(plan.molecules())[2]
    site = hcn.molecule.sites[0]
    assert site.file_atom == 1  # nitrogen comes first in the file
    assert hcn.structure.structure.symbols[site.atom] == "C"
    assert hcn.molecule.file_order[site.atom] == 1


def test_an_element_that_is_nowhere(write: Write) -> None:
    with pytest.raises(UserError, match="none of the 4 molecules has S in it"):
        Plan(load_campaign(write(("element: C", "element: S"))))


def test_selection(write: Write) -> None:
    def names(select: str) -> list[str]:
        path = write(("molecules.xyz", f"molecules.xyz\n  select: {select}"))
        with Plan(load_campaign(path)) as plan:
            return [m.molecule.name for m in plan.molecules()]

    assert names("{limit: 2}") == ["methane"]  # nitrogen is the first
    assert names("{names: [hcn, methane]}") == ["methane", "hcn"]
    assert names("{exclude: [hcn, nitrogen]}") == ["methane", "ethyne"]
    with pytest.raises(CampaignFileError, match=r"called 'metane'.*did you mean 'methane'"):
        names("{names: [metane]}")
    with pytest.raises(HtxasError):
        names("{exclude: [methane, ethyne, hcn, nitrogen]}")


def test_an_atom_on_another_stops_the_plan(write: Write) -> None:
    broken = "3\nhcn\nN 0 0 1.1\nC 0 0 0\nH 0 0 0.01\n"
    with pytest.raises(StructureError, match=r"hcn.*A apart"):
        Plan(load_campaign(write(molecules=broken)))


def test_one_name_in_two_files(write: Write, tmp_path: Path) -> None:
    (tmp_path / "more.xyz").write_text("2\nmethane\nC 0 0 0\nO 1.1 0 0\n")
    path = write(("  file: molecules.xyz", "  - file: molecules.xyz\n  - file: more.xyz"))
    with pytest.raises(UserError, match="two molecules are called 'methane'"):
        Plan(load_campaign(path))


def test_a_crystal_is_listed_and_refused(write: Write) -> None:
    crystal = (
        '2\nLattice="3.6 0 0 0 3.6 0 0 0 3.6" Properties=species:S:1:pos:R:3 name=diamondlike\n'
        "C 0 0 0\nC 1.8 1.8 1.8\n"
    )
    with Plan(load_campaign(write(molecules=crystal))) as plan:
        assert plan.survey.refused.count == 1
        with pytest.raises(UnsupportedInput, match="nothing was submitted"):
            plan.refuse_unless_sound()
