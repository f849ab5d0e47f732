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
    assert sum(p.estimate_s for m in molecules for p in (m.ground, *m.sites)) == pytest.approx(
        s.ground_s + s.sites_s
    )


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


MAGNETIC = (
    "2\nProperties=species:S:1:pos:R:3:initial_magmoms:R:1 name=radical\nO 0 0 0 0.2\nC 0 0 1.13 -0.75\n"
    "2\nProperties=species:S:1:pos:R:3:initial_magmoms:R:1 name=co\nC 0 0 0 0\nO 0 0 1.13 0\n"
)


def test_magnetic_moments_are_refused_whatever_the_engine_thinks(write: Write) -> None:
    with Plan(load_campaign(write(molecules=MAGNETIC))) as plan:
        assert (plan.survey.refused.count, plan.survey.molecules) == (1, 1)
        with pytest.raises(UnsupportedInput) as caught:
            plan.refuse_unless_sound()
    text = str(caught.value)
    assert "\n" not in text
    assert (
        "nothing was submitted: radical: magnetic moments in molecules.xyz, up to 0.75 Bohr magnetons (C, atom 1"
        in text
    )
    assert "to compute it without spin, knowingly, take the moments out of the file" in text


def test_magnetic_molecules_are_skipped_if_the_file_says_so(write: Write) -> None:
    with Plan(load_campaign(write(SKIP, molecules=MAGNETIC))) as plan:
        plan.refuse_unless_sound()
        assert [m.molecule.name for m in plan.molecules()] == ["co"]
        (skipped,) = plan.survey.skipped
    assert (skipped.name, skipped.why) == ("radical", "engine")
    assert skipped.message.startswith("molecules.xyz, radical: magnetic moments")


BROKEN = """\
5
methane
C 0.0 0.0 0.0
H 0.629 0.629 0.629
H -0.629 -0.629 0.629
H -0.629 0.629 -0.629
H 0.629 -0.629 -0.629
3
overlapping
N 0 0 1.1
C 0 0 0
H 0 0 0.01
2
unreadable
C 0.0 zero 0.0
O 0.0 0.0 1.1
2
CO/2
C 0.0 0.0 0.0
O 0.0 0.0 1.1
2
unobtainium
C 0.0 0.0 0.0
Xx 0.0 0.0 1.1
3
hcn
N 0.0 0.0 1.156
C 0.0 0.0 0.0
H 0.0 0.0 -1.064
"""
SKIP = ("file: molecules.xyz", "file: molecules.xyz\n  on_error: skip")


def test_what_cannot_be_used_is_skipped_and_listed_if_the_file_says_so(write: Write) -> None:
    with pytest.raises(StructureError):
        Plan(load_campaign(write(molecules=BROKEN)))
    counted: list[None] = []
    with Plan(load_campaign(write(SKIP, molecules=BROKEN)), lambda: counted.append(None)) as plan:
        plan.refuse_unless_sound()
        assert [m.molecule.name for m in plan.molecules()] == ["methane", "molecules-4", "hcn"]
        found = {s.name: (s.why, s.message) for s in plan.survey.skipped}
    assert {name: why for name, (why, _) in found.items()} == {
        "overlapping": "structure",
        "unreadable": "record",
        "unobtainium": "structure",
    }
    assert "line 15, record 3" in found["unreadable"][1]
    assert "A apart" in found["overlapping"][1]
    assert len(counted) == 6


def test_what_the_engine_refuses_is_skipped_too(write: Write) -> None:
    crystal = (
        '2\nLattice="3.6 0 0 0 3.6 0 0 0 3.6" Properties=species:S:1:pos:R:3 name=diamondlike\n'
        "C 0 0 0\nC 1.8 1.8 1.8\n"
        "2\nProperties=species:S:1:pos:R:3 name=co\nC 0 0 0\nO 0 0 1.13\n"
    )
    with Plan(load_campaign(write(SKIP, molecules=crystal))) as plan:
        plan.refuse_unless_sound()
        assert plan.survey.molecules == 1
        assert [(s.name, s.why) for s in plan.survey.skipped] == [("diamondlike", "engine")]


def test_entries_that_cannot_be_told_apart_stop_in_any_case(write: Write) -> None:
    cut = "3\nhcn\nN 0 0 1.1\nC 0 0 0\n2\nco\nC 0 0 0\nO 0 0 1.1\n"
    with pytest.raises(StructureError, match="record 1: expected symbol x y z"):
        Plan(load_campaign(write(SKIP, molecules=cut)))


def test_a_name_used_twice_is_never_skipped(write: Write) -> None:
    twice = "2\nco\nC 0 0 0\nO 0 0 1.1\n" * 2
    with pytest.raises(StructureError, match="used twice"):
        Plan(load_campaign(write(SKIP, molecules=twice)))


def test_nothing_but_broken_molecules(write: Write) -> None:
    broken = "3\nhcn\nN 0 0 1.1\nC 0 0 0\nH 0 0 0.01\n"
    with pytest.raises(UserError, match=r"no molecule is left, 1 had to be skipped.*apart"):
        Plan(load_campaign(write(SKIP, molecules=broken)))


@pytest.mark.xtb
def test_smiles_that_give_no_geometry_are_skipped(write: Write, tmp_path: Path) -> None:
    (tmp_path / "list.smi").write_text("C methane\nC1CC nonsense\n[CH3] radical\nO=C=O dioxide\n")
    path = write(SKIP, ("molecules.xyz", "list.smi\n  geometry: {method: gfn2-xtb}"))
    with Plan(load_campaign(path)) as plan:
        assert plan.survey.molecules == 2
        assert [(s.name, s.why) for s in plan.survey.skipped] == [
            ("nonsense", "geometry"),
            ("radical", "geometry"),
        ]


def test_the_policy_is_part_of_the_campaign_only_where_it_is_not_the_default(write: Write) -> None:
    assert "on_error" not in load_campaign(write()).document["structures"][0]
    assert load_campaign(write(SKIP)).document["structures"][0]["on_error"] == "skip"
    with pytest.raises(CampaignFileError, match=r"on_error.*'stop' or 'skip'"):
        load_campaign(write((SKIP[0], SKIP[1].replace("skip", "ignore"))))


def test_sites_of_an_engine_without_ground_states_stand_alone(write: Write) -> None:
    path = write(("preset: instant", "preset: instant, parameters: {ground: false}"))
    campaign = load_campaign(path)
    assert campaign.document["parameters"]["ground"] is None
    with Plan(campaign) as plan:
        s = plan.survey
        assert (s.molecules, s.grounds, s.sites, s.calculations) == (3, 0, 3, 3)
        assert (s.ground_s, s.largest[0]) == (0.0, 0.0)
        molecules = list(plan.molecules())
    for planned in molecules:
        assert (planned.ground, planned.molecule.ground_key) == (None, None)
        assert planned.calculations == planned.sites
