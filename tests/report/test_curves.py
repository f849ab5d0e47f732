"""Continuous spectra of sites that stand alone: tables, figures, files. Nothing speaks of a ground state."""

from __future__ import annotations

import dataclasses
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from matplotlib.image import imread
from rich.console import RenderableType

from htxas.cli.export import export
from htxas.cli.molecule import molecule
from htxas.cli.query import query
from htxas.cli.site import site
from htxas.domain.spectrum import Curve, Quantity
from htxas.errors import DatasetError, UserError
from htxas.report.export import ExportFormat, export_campaign, molecule_entry
from htxas.report.parquet import MOLECULES_FILE, SITES_FILE
from htxas.report.plots import plot_molecule, plot_site
from htxas.report.results import load_molecule, load_site, molecular_spectrum
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
from htxas.store.store import Store

CAMPAIGN = "quickstart"


def rendered(table: RenderableType) -> str:
    text = io.StringIO()
    with redirect_stdout(text):
        console().print(table)
    return text.getvalue()


# ---- what is put together


def test_complete_without_a_ground_state(curves: Any) -> None:
    ethanol, propanone = load_molecule(curves, "ethanol"), load_molecule(curves, "propanone")
    assert (ethanol.complete, ethanol.ground_record, ethanol.lacks_ground) == (True, None, False)
    assert not propanone.complete
    spectrum = molecular_spectrum(ethanol)
    assert spectrum is not None
    assert spectrum.quantity is Quantity.ABSORPTION


def test_what_cannot_be_broadened_or_added_is_one_line(curves: Any, results: Any) -> None:
    view = load_molecule(curves, "ethanol")
    with pytest.raises(UserError, match=r"C1 cannot be broadened by 20.0 eV: the curve is too short"):
        molecular_spectrum(view, 20.0)
    sticks = load_site(results, "ethanol/1")
    mixed = dataclasses.replace(view, sites=(sticks, *view.sites))
    with pytest.raises(
        UserError, match=r"ethanol: the spectra of its sites cannot be added: .* are not added"
    ):
        molecular_spectrum(mixed)


# ---- tables


def test_site_table(curves: Any) -> None:
    text = rendered(site_table(load_site(curves, "ethanol/1")))
    for word in (
        "ethanol, C1 K edge",
        "286.700 eV  (FEFF's own, nothing shifted)",
        "-6.500 eV, on the scale of the code",
        "white line",
        "1 is the bare atom 50 eV above the edge",
        "0.090 eV full width",
        "eV above the threshold",
    ):
        assert word in text
    for word in ("transitions", "ionisation", "overlap", "first state"):
        assert word not in text


def test_site_json(curves: Any, curve_world: Any) -> None:
    document = json.loads(to_json(site_document(load_site(curves, "ethanol/1"))))["result"]
    wanted = curve_world.sites[curve_world.molecules["ethanol"].sites[0].key]
    assert (document["edge_eV"], document["fermi_eV"], document["lifetime_eV"]) == (
        wanted.edge_eV,
        -6.5,
        0.09,
    )
    assert document["curve"]["energies_eV"] == wanted.curve.energies_eV.tolist()
    assert document["curve"]["absorption_xyz"] == wanted.curve.intensity.tolist()
    assert document["curve"]["background"] == wanted.background.tolist()
    assert document["dos"]["kinds"] == ["C*", "H"]
    assert np.shape(document["dos"]["density_spdf"]) == (2, 120, 4)
    assert document["white_line"] == wanted.curve.isotropic.max()
    assert document["spectrum_quantity"] == "normalised_absorption"
    assert len(document["spectrum_total_x_y_z"]) == len(document["spectrum_energies_eV"])
    assert "stick_energies_eV" not in document
    assert "excitation_energy_eV" not in document


def test_molecule_table_and_json(curves: Any) -> None:
    text = rendered(molecule_table(load_molecule(curves, "ethanol")))
    for word in (
        "complete  2 of 2 sites",
        "threshold (eV)",
        "286.70",
        "Fermi level (eV)",
        "white line",
        "1.900",
    ):
        assert word in text
    for word in ("ground", "gap", "dipole", "first state"):
        assert word not in text
    unfinished = rendered(molecule_table(load_molecule(curves, "methane")))
    assert "ground" not in unfinished
    assert "first state" not in unfinished  # nobody knows yet what will come
    complete = json.loads(to_json(molecule_document(load_molecule(curves, "ethanol"))))
    assert (complete["complete"], complete["missing"], complete["ground"]) == (True, [], None)
    assert complete["spectrum"]["quantity"] == "normalised_absorption"
    incomplete = json.loads(to_json(molecule_document(load_molecule(curves, "propanone"))))
    assert (len(incomplete["missing"]), incomplete["ground"], incomplete["spectrum"]) == (1, None, None)


def test_query_rows_show_the_onset_of_both(curves: Any, results: Any) -> None:
    for store in (curves, results):
        row = query_row(load_site(store, "ethanol/1").record, load_site(store, "ethanol/1").structure)
        assert tuple(row) == QUERY_COLUMNS
        assert row["onset_eV"] == pytest.approx(286.7)
        assert (row["excitation_energy_eV"] is None) == (store is curves)
        text = rendered(query_table([row], limit=20))
        assert "onset (eV)" in text
        assert "286.70" in text


# ---- figures


def test_site_figure(tmp_path: Path, curves: Any) -> None:
    path = plot_site(load_site(curves, "ethanol/1"), tmp_path / "site.png")
    assert imread(path).shape[:2] == (800, 1360)
    text = plot_site(load_site(curves, "ethanol/1"), tmp_path / "s.svg").read_text()
    for word in (
        "normalised absorption",
        "threshold",
        "286.70 eV",
        "total",
        "atom alone",
        "ethanol, C1 K edge",
    ):
        assert word in text
    for word in ("oscillator", "stick", "ionisation", ">x<", "1/eV"):
        assert word not in text
    assert ">x<" in plot_site(load_site(curves, "ethanol/2"), tmp_path / "p.svg").read_text()  # they differ


def test_molecule_figure(tmp_path: Path, curves: Any) -> None:
    view = load_molecule(curves, "ethanol")
    assert imread(plot_molecule(view, tmp_path / "m.png")).shape[1] == 1680
    text = plot_molecule(view, tmp_path / "m.svg").read_text()
    for word in (
        "normalised absorption, offset",
        "weighted",
        "C1",
        "C2",
        "Fermi level",
        "absorber p DOS",
        "threshold",
    ):
        assert word in text
    for word in ("ground state", "HOMO", "gap", "INCOMPLETE", "first state"):
        assert word not in text
    text = plot_molecule(load_molecule(curves, "propanone"), tmp_path / "i.svg").read_text()
    assert "INCOMPLETE" in text
    assert "ground state" not in text


def test_molecule_figure_without_any_dos(tmp_path: Path, curves: Any, results: Any) -> None:
    view = load_molecule(curves, "ethanol")
    bare = tuple(dataclasses.replace(s, result=dataclasses.replace(s.result, dos=None)) for s in view.sites)
    text = plot_molecule(dataclasses.replace(view, sites=bare), tmp_path / "a.svg").read_text()
    assert "DOS" not in text
    alone = dataclasses.replace(load_molecule(results, "ethanol"), ground_record=None, ground=None)
    text = plot_molecule(alone, tmp_path / "b.svg").read_text()  # sticks of an engine without ground states
    for word in ("ground state", "INCOMPLETE", "DOS"):
        assert word not in text


def test_a_curve_too_short_for_the_broadening_is_not_drawn(tmp_path: Path, curves: Any) -> None:
    with pytest.raises(UserError, match="cannot be broadened by 20"):
        plot_site(load_site(curves, "ethanol/1"), tmp_path / "a.png", sigma_eV=20.0)
    assert list(tmp_path.iterdir()) == []


# ---- files


@pytest.mark.parametrize("export_format", [ExportFormat.DATASET, ExportFormat.HDF5])
def test_files_of_transitions_refuse_curves_before_anything_is_written(
    tmp_path: Path, curves: Any, export_format: ExportFormat
) -> None:
    with pytest.raises(
        UserError, match="holds transitions, and this campaign has continuous spectra"
    ) as error:
        export_campaign(curves, CAMPAIGN, tmp_path / "out", export_format)
    assert error.value.hint == "htxas export quickstart --format parquet"
    assert list(tmp_path.iterdir()) == []


def test_the_writers_themselves_refuse_curves(tmp_path: Path, curves: Any, curve_world: Any) -> None:
    from htxas.datafile import DatasetMeta, DatasetWriter
    from htxas.datafile.published import PublishedWriter

    record = curve_world.molecules["ethanol"]
    entry = molecule_entry(curves, record, curves.calculations([s.key for s in record.sites]), edge="K")
    assert (entry.complete, entry.ground_key, entry.sites, len(entry.curves)) == (True, None, (), 2)
    meta = DatasetMeta(CAMPAIGN, "fake", {}, "htxas")
    for writer in (DatasetWriter(tmp_path / "d.h5", meta), PublishedWriter(tmp_path / "h", meta)):
        with pytest.raises(DatasetError, match="has continuous spectra"), writer:
            writer.add(entry)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_parquet_rows(tmp_path: Path, curves: Any, curve_world: Any) -> None:
    summary = export_campaign(
        curves, CAMPAIGN, tmp_path / "out", ExportFormat.PARQUET, include_incomplete=True
    )
    assert (summary.molecules, summary.sites, summary.incomplete) == (2, 3, ("propanone", "methane"))
    rows = pq.read_table(tmp_path / "out" / SITES_FILE).to_pylist()
    first, second = curve_world.molecules["ethanol"].sites
    assert [r["key"] for r in rows[:2]] == [first.key, second.key]
    for row, ref in zip(rows, (first, second), strict=False):
        wanted = curve_world.sites[ref.key]
        assert (row["edge_eV"], row["fermi_eV"], row["edge"]) == (wanted.edge_eV, -6.5, "K")
        np.testing.assert_array_equal(row["curve_energies_eV"], wanted.curve.energies_eV)
        np.testing.assert_allclose(row["curve_absorption"], wanted.curve.isotropic, rtol=1e-6)
        np.testing.assert_array_equal(row["background"], wanted.background)
        np.testing.assert_allclose(row["spectrum_total"], wanted.spectrum().total, rtol=1e-6)
        assert row["spectrum_quantity"] == "normalised_absorption"
        assert row["excitation_energy_eV"] is row["stick_energies_eV"] is row["ground_energy_eV"] is None
    assert rows[0]["curve_absorption_x"] is None  # x, y and z are the same
    np.testing.assert_array_equal(
        rows[1]["curve_absorption_x"], curve_world.sites[second.key].curve.intensity[:, 0]
    )
    molecules = pq.read_table(tmp_path / "out" / MOLECULES_FILE).to_pylist()
    assert [(m["complete"], m["n_sites"], m["ground_key"], m["gap_eV"]) for m in molecules] == [
        (True, 2, None, None),
        (False, 1, None, None),
    ]
    assert molecules[0]["edge_eV"] == pytest.approx(286.7)
    assert molecules[0]["spectrum_quantity"] == "normalised_absorption"


def test_transitions_without_a_ground_state_are_written_everywhere(
    tmp_path: Path, results: Any, world: Any
) -> None:
    from htxas.datafile import DatasetFile

    alone = dataclasses.replace(world.molecules["ethanol"], ground_key=None)
    results.world = dataclasses.replace(world, molecules={"ethanol": alone})
    for export_format in ExportFormat:
        summary = export_campaign(results, CAMPAIGN, tmp_path / export_format, export_format)
        assert (summary.molecules, summary.incomplete) == (1, ())
    with DatasetFile(tmp_path / "dataset") as data:
        data.verify()
        entry = data.molecule("ethanol")
    assert (entry.complete, entry.ground_key, entry.ground, entry.missing) == (True, None, None, ())


# ---- commands


@pytest.mark.mongo
def test_commands(curve_store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(curve_store, "close", lambda: None)  # the fixture closes it
    monkeypatch.setattr(Store, "open", staticmethod(lambda: curve_store))

    def ok(command: click.Command, *arguments: str) -> str:
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "286.700 eV  (FEFF's own" in ok(site, "show", "ethanol/1")
    assert "complete  2 of 2 sites" in ok(molecule, "show", "ethanol")
    assert ok(site, "plot", "ethanol/2").strip() == "ethanol_2.png"
    assert ok(molecule, "plot", "ethanol").strip() == "ethanol.png"
    rows = json.loads(ok(query, "--energy", "287:", "--sort", "energy", "--json"))
    assert [r["onset_eV"] for r in rows] == pytest.approx([287.4, 288.1])
    refused = CliRunner().invoke(export, ["quickstart", "--format", "dataset"]).exception
    assert "holds transitions" in str(refused)
    assert "quickstart_parquet: 1 molecule, 2 sites" in ok(export, "quickstart", "--format", "parquet")
    row = pq.read_table(tmp_path / "quickstart_parquet" / MOLECULES_FILE).to_pylist()[0]
    stored = curve_store.assemble(curve_store.molecule("quickstart", "ethanol")).spectrum
    np.testing.assert_allclose(row["spectrum_total"], stored.total, rtol=1e-6)


def test_an_entry_is_of_one_kind(results: Any, world: Any, curves: Any, curve_world: Any) -> None:
    def entry(store: Any, of: Any) -> Any:
        record = of.molecules["ethanol"]
        keys = [k for k in (record.ground_key, *(s.key for s in record.sites)) if k]
        return molecule_entry(store, record, store.calculations(keys), edge="K")

    sticks, continuous = entry(results, world), entry(curves, curve_world)
    with pytest.raises(ValueError, match="transitions and continuous spectra"):
        dataclasses.replace(sticks, curves=continuous.curves)
    assert isinstance(continuous.curves[0].curve, Curve)
