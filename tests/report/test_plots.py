"""Figures: drawn, of fixed size, the same every time. What they look like is judged by eye."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from htxas.domain.structure import Structure
from htxas.errors import UserError
from htxas.report.figure import COLOURS, palette
from htxas.report.plots import plot_molecule, plot_site
from htxas.report.results import load_molecule, load_site
from htxas.report.sketch import bonds, project


def inked(path: Path) -> float:
    """Share of pixels that are not white."""
    return float((imread(path)[..., :3] < 0.99).any(axis=-1).mean())


def test_site_figure(tmp_path: Path, results: Any) -> None:
    path = plot_site(load_site(results, "ethanol/1"), tmp_path / "site.png")
    assert imread(path).shape[:2] == (800, 1360)
    assert inked(path) > 0.05


def test_molecule_figure(tmp_path: Path, results: Any) -> None:
    path = plot_molecule(load_molecule(results, "ethanol"), tmp_path / "molecule.png")
    assert imread(path).shape[1] == 1680
    assert inked(path) > 0.05


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_vector_figures_are_the_same_every_time(tmp_path: Path, results: Any, suffix: str) -> None:
    view = load_molecule(results, "ethanol")
    first = plot_molecule(view, tmp_path / f"a.{suffix}").read_bytes()
    assert plot_molecule(view, tmp_path / f"b.{suffix}").read_bytes() == first
    assert first.startswith(b"%PDF" if suffix == "pdf" else b"<?xml")


def test_figures_say_what_they_show(tmp_path: Path, results: Any) -> None:
    text = plot_molecule(load_molecule(results, "ethanol"), tmp_path / "a.svg").read_text()
    for word in ("ethanol", "C1", "C2", "weighted", "HOMO", "LUMO", "C p", "C s", "C2H6O"):
        assert word in text
    assert "INCOMPLETE" not in text
    text = plot_site(load_site(results, "ethanol/1"), tmp_path / "s.svg").read_text()
    for word in ("first state", "286.70 eV", "1s ionisation", "291.20 eV", "total", "ethanol, C1 K edge"):
        assert word in text


def test_incomplete_molecule_is_marked(tmp_path: Path, results: Any) -> None:
    text = plot_molecule(load_molecule(results, "propanone"), tmp_path / "a.svg").read_text()
    assert "INCOMPLETE" in text
    assert "without C1" in text
    assert "weighted" not in text


def test_molecule_without_ground_state_or_sites(tmp_path: Path, results: Any) -> None:
    view = load_molecule(results, "ethanol")
    no_ground = dataclasses.replace(view, ground=None)
    assert "no ground state yet" in plot_molecule(no_ground, tmp_path / "a.svg").read_text()
    no_sites = dataclasses.replace(view, sites=tuple(dataclasses.replace(s, result=None) for s in view.sites))
    assert "no finished site" in plot_molecule(no_sites, tmp_path / "b.svg").read_text()


def test_a_pdos_ends_where_its_levels_do(tmp_path: Path, results: Any) -> None:
    view = load_molecule(results, "ethanol")
    assert "unknown" not in plot_molecule(view, tmp_path / "a.svg").read_text()
    assert view.ground is not None
    pdos = dataclasses.replace(view.ground.pdos, complete_to_eV=view.ground.homo_eV + 11.0)
    few = dataclasses.replace(view, ground=dataclasses.replace(view.ground, pdos=pdos))
    text = plot_molecule(few, tmp_path / "b.svg").read_text()
    for word in ("unknown: levels", "computed to 11.0 eV", "C p"):
        assert word in text
    assert "too few levels" in plot_molecule(few, tmp_path / "c.svg", sigma_eV=8.0).read_text()


def test_nothing_to_draw_is_one_line(tmp_path: Path, results: Any) -> None:
    with pytest.raises(UserError, match="nothing to draw"):
        plot_molecule(load_molecule(results, "methane"), tmp_path / "a.png")
    with pytest.raises(UserError, match="C1 is failed"):
        plot_site(load_site(results, "propanone/1"), tmp_path / "a.png")


def test_unknown_suffix_and_missing_folder(tmp_path: Path, results: Any) -> None:
    view = load_site(results, "ethanol/1")
    with pytest.raises(UserError, match=r"use .png, .svg or .pdf"):
        plot_site(view, tmp_path / "a.jpg")
    with pytest.raises(UserError, match="cannot write"):
        plot_site(view, tmp_path / "no" / "a.png")


def test_palette_has_as_many_colours_as_asked() -> None:
    assert palette(1) == COLOURS[:1]
    assert len({tuple(c) for c in palette(14)}) == 14


def test_sketch_sees_bonds_and_lies_in_the_widest_plane() -> None:
    structure, order = Structure.from_atoms(
        ["O", "C", "O", "H"], [[0, 0, -1.2], [0, 0, 0], [0, 0, 1.2], [0, 0, 9]]
    )
    named = {frozenset(order[i] for i in pair) for pair in bonds(structure)}
    assert named == {frozenset({0, 1}), frozenset({1, 2})}
    flat = project(structure.positions_A)
    assert flat.shape == (4, 3)
    np.testing.assert_allclose(flat[:, 1:], 0, atol=1e-12)
    np.testing.assert_array_equal(flat, project(structure.positions_A))
