"""Tables hold the facts; JSON documents hold the numbers."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import pytest
from rich.console import RenderableType

from htxas.report.results import load_molecule, load_site
from htxas.report.tables import (
    QUERY_COLUMNS,
    molecule_document,
    molecule_table,
    query_row,
    query_table,
    site_document,
    site_table,
)
from htxas.report.terminal import console, to_json


def rendered(table: RenderableType) -> str:
    text = io.StringIO()
    with redirect_stdout(text):
        console().print(table)
    return text.getvalue()


def test_finished_site(results: Any) -> None:
    text = rendered(site_table(load_site(results, "ethanol/1")))
    for word in (
        "ethanol, C1 K edge",
        "done",
        "286.700 eV",
        "291.200 eV",
        "strongest 8 of 61",
        "C2H6O",
        "CCO",
    ):
        assert word in text


def test_a_molecule_tells_how_far_its_levels_are_known(results: Any) -> None:
    view = load_molecule(results, "ethanol")
    assert "levels" not in rendered(molecule_table(view))
    assert molecule_document(view)["ground"]["result"]["levels_known_to_eV"] is None
    assert view.ground is not None
    homo = view.ground.homo_eV
    pdos = replace(view.ground.pdos, complete_to_eV=homo + 11.0)
    few = replace(view, ground=replace(view.ground, pdos=pdos))
    assert "computed to 11.0 eV above the HOMO" in rendered(molecule_table(few))
    assert molecule_document(few)["ground"]["result"]["levels_known_to_eV"] == homo + 11.0


def test_failed_site_says_why(results: Any) -> None:
    text = rendered(site_table(load_site(results, "propanone/1")))
    for word in ("failed: scf_unconverged", "gave up after 100 cycles", "cycles", "/runs/x"):
        assert word in text


def test_site_json_has_every_stick(results: Any) -> None:
    document = json.loads(to_json(site_document(load_site(results, "ethanol/1"))))
    assert document["molecule"] == "ethanol"
    assert len(document["result"]["stick_energies_eV"]) == 61
    assert len(document["result"]["stick_strengths_xyz"][0]) == 3
    assert len(document["result"]["spectrum_total_x_y_z"]) == len(document["result"]["spectrum_energies_eV"])


def test_not_a_number_becomes_null(results: Any) -> None:
    document = json.loads(to_json(site_document(load_site(results, "propanone/1"))))
    assert document["evidence"] == {"cycles": 100, "change": None}
    assert document["result"] is None


def test_molecule_table(results: Any) -> None:
    text = rendered(molecule_table(load_molecule(results, "ethanol")))
    for word in (
        "ethanol",
        "complete  2 of 2 sites",
        "C1",
        "C2",
        "286.70",
        "gap",
        "GFN2-xTB, made.sdf record 2",
    ):
        assert word in text
    assert "incomplete  1 of 2 sites" in rendered(molecule_table(load_molecule(results, "propanone")))


def test_incomplete_molecule_serves_no_spectrum(results: Any, world: Any) -> None:
    complete = json.loads(to_json(molecule_document(load_molecule(results, "ethanol"))))
    assert complete["complete"]
    assert len(complete["spectrum"]["energies_eV"]) == len(complete["spectrum"]["total_x_y_z"])
    incomplete = json.loads(to_json(molecule_document(load_molecule(results, "propanone"))))
    assert incomplete["spectrum"] is None
    assert incomplete["missing"] == [world.molecules["propanone"].sites[1].key]


@pytest.fixture
def rows(results: Any, world: Any) -> list[dict[str, Any]]:
    records = [results.calculation(k) for k in world.calculations]
    return [query_row(r, results.structure(r.structure_key)) for r in records]


def test_query_rows(rows: list[dict[str, Any]]) -> None:
    assert all(tuple(r) == QUERY_COLUMNS for r in rows)
    text = rendered(query_table(rows, limit=20))
    assert "8 found" in text
    assert "failed: scf_unconverged" in text
    assert "the first 8; --limit shows more" in rendered(query_table(rows, limit=8))
    assert "nothing matches" in rendered(query_table([], limit=8))


def test_square_brackets_of_smiles_survive(rows: list[dict[str, Any]]) -> None:
    row = {**rows[0], "smiles": "c1cc[nH]c1", "formula": "[/bold]", "kind": ":smile:"}
    text = rendered(query_table([row], limit=20))
    for word in ("c1cc[nH]c1", "[/bold]", ":smile:"):
        assert word in text
