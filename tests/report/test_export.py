"""Exports hold what the campaign computed, and only complete molecules unless asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from htxas.datafile import DatasetFile
from htxas.datafile.published import EIGEN_FILE, MOLECULE_FILE, SITE_FILE
from htxas.domain.spectrum import broaden
from htxas.domain.structure import Structure
from htxas.errors import NotFound, UserError
from htxas.report.export import ExportFormat, calculations_of, export_campaign, molecule_entry
from htxas.report.parquet import MOLECULES_FILE, SITES_FILE, molecule_row

CAMPAIGN = "quickstart"
OUTPUT = {ExportFormat.HDF5: "out", ExportFormat.DATASET: "out.h5", ExportFormat.PARQUET: "out"}


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_only_complete_molecules_are_counted_and_written(
    tmp_path: Path, results: Any, export_format: ExportFormat
) -> None:
    calls: list[None] = []
    summary = export_campaign(
        results,
        CAMPAIGN,
        tmp_path / OUTPUT[export_format],
        export_format,
        progress=lambda: calls.append(None),
    )
    assert (summary.molecules, summary.sites, len(calls)) == (1, 2, 1)
    assert summary.incomplete == ("propanone", "methane")
    assert not summary.incomplete_written


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_incomplete_on_request(tmp_path: Path, results: Any, export_format: ExportFormat) -> None:
    output = tmp_path / OUTPUT[export_format]
    summary = export_campaign(results, CAMPAIGN, output, export_format, include_incomplete=True)
    assert (summary.molecules, summary.sites, summary.incomplete_written) == (2, 3, True)
    if export_format is ExportFormat.DATASET:
        with DatasetFile(output) as data:
            assert {m.name: m.complete for m in data} == {"ethanol": True, "propanone": False}
    elif export_format is ExportFormat.HDF5:
        with h5py.File(output / SITE_FILE) as sites, h5py.File(output / MOLECULE_FILE) as molecules:
            assert not sites["propanone"].attrs["complete"]
            assert set(molecules) == {"ethanol"}
    else:
        rows = pq.read_table(output / MOLECULES_FILE).to_pylist()
        assert {r["molecule"]: r["complete"] for r in rows} == {"ethanol": True, "propanone": False}
        assert rows[1]["spectrum_total"] is None


def test_every_export_says_what_was_corrected(tmp_path: Path, results: Any, world: Any) -> None:
    ethanol = world.molecules["ethanol"]
    first, second = (ref.key for ref in ethanol.sites)
    results.ladders = {
        first: {"corrections": ["more_cycles", "level_shift"]},
        ethanol.ground_key: {"corrections": ["more_memory"]},
    }
    results.provenance = {first: {"extra": {"another_state": ["ion"]}}}
    for export_format in ExportFormat:
        export_campaign(results, CAMPAIGN, tmp_path / export_format, export_format)
    made = ("more_cycles", "level_shift")
    with DatasetFile(tmp_path / "dataset") as data:
        entry = data.molecule("ethanol")
    assert [(s.key, s.corrections, s.another_state) for s in entry.sites] == [
        (first, made, ("ion",)),
        (second, (), ()),
    ]
    assert entry.ground is not None
    assert entry.ground.corrections == ("more_memory",)
    rows = pq.read_table(tmp_path / "parquet" / SITES_FILE).to_pylist()
    assert [(r["corrections"], r["another_state"]) for r in rows] == [(list(made), ["ion"]), ([], [])]
    (row,) = pq.read_table(tmp_path / "parquet" / MOLECULES_FILE).to_pylist()
    assert row["ground_corrections"] == ["more_memory"]
    with h5py.File(tmp_path / "hdf5" / SITE_FILE) as file:
        attributes = [dict(site.attrs) for site in file["ethanol"].values()]
    assert [(a["corrections"], a["another_state"]) for a in attributes] == [
        ("more_cycles, level_shift", "ion"),
        ("", ""),
    ]


def test_dataset_holds_the_results(tmp_path: Path, results: Any, world: Any) -> None:
    export_campaign(results, CAMPAIGN, tmp_path / "d.h5", ExportFormat.DATASET)
    with DatasetFile(tmp_path / "d.h5") as data:
        data.verify()
        assert (data.meta.engine, data.meta.campaign) == ("fake", CAMPAIGN)
        assert data.meta.parameters["preset"] == "published"
        assert "created" not in data.meta.parameters
        got = data.molecule("ethanol")
    record = world.molecules["ethanol"]
    assert got.structure.key == record.structure_key
    assert got.molecular_weight_u == pytest.approx(46.069, abs=2e-3)
    assert got.ground is not None
    assert got.spectrum is not None
    np.testing.assert_allclose(
        got.ground.pdos.weights, world.grounds[record.ground_key].pdos.weights, atol=1e-5
    )
    for site, ref in zip(got.sites, record.sites, strict=True):
        wanted = world.sites[ref.key]
        assert (site.file_atom, site.edge, site.ionization_eV) == (ref.file_atom, "K", wanted.ionization_eV)
        np.testing.assert_array_equal(site.sticks.energies_eV, wanted.sticks.energies_eV)
        np.testing.assert_array_equal(site.sticks.strengths, wanted.sticks.strengths)


def test_the_same_results_make_the_same_hash(tmp_path: Path, results: Any) -> None:
    hashes = []
    for name in ("a.h5", "b.h5"):
        export_campaign(results, CAMPAIGN, tmp_path / name, ExportFormat.DATASET)
        with DatasetFile(tmp_path / name) as data:
            hashes.append(data.meta.content_sha256)
    assert hashes[0] == hashes[1]


def test_published_layout_uses_file_atoms(tmp_path: Path, results: Any) -> None:
    export_campaign(results, CAMPAIGN, tmp_path / "out", ExportFormat.HDF5)
    with h5py.File(tmp_path / "out" / EIGEN_FILE) as file:
        assert set(file["ethanol"]) == {"1", "2"}
        assert file["ethanol/1"].attrs["excitation_energy"] == pytest.approx(286.7)


def test_gdb_names_become_numbers_only_together(tmp_path: Path, results: Any, world: Any) -> None:
    import dataclasses

    def named(name: str) -> None:
        results.world = dataclasses.replace(
            world, molecules={"x": dataclasses.replace(world.molecules["ethanol"], name=name)}
        )

    for name, group in (("gdb_12", "12"), ("ethanol", "ethanol")):
        named(name)
        export_campaign(results, CAMPAIGN, tmp_path / name, ExportFormat.HDF5)
        with h5py.File(tmp_path / name / MOLECULE_FILE) as file:
            assert list(file) == [group]


def test_parquet_rows(tmp_path: Path, results: Any, world: Any) -> None:
    export_campaign(results, CAMPAIGN, tmp_path / "out", ExportFormat.PARQUET)
    sites = pq.read_table(tmp_path / "out" / SITES_FILE)
    assert sites.schema.metadata[b"htxas_campaign"] == CAMPAIGN.encode()
    row = sites.to_pylist()[0]
    result = world.sites[world.molecules["ethanol"].sites[0].key]
    assert (row["molecule"], row["file_atom"], row["multiplicity"]) == ("ethanol", 1, 1)
    assert row["excitation_energy_eV"] == result.excitation_energy_eV
    np.testing.assert_array_equal(row["stick_energies_eV"], result.sticks.energies_eV)
    np.testing.assert_allclose(row["spectrum_total"], broaden(result.sticks).total, rtol=1e-6)
    molecule = pq.read_table(tmp_path / "out" / MOLECULES_FILE).to_pylist()[0]
    assert molecule["symbols"][:3] == ["O", "C", "C"]
    assert molecule["positions_A"][0] == [2.4, 0.0, 0.0]
    assert molecule["dipole_D"] == pytest.approx(1.0)


def test_parquet_has_moments_in_the_order_of_the_file(results: Any, world: Any) -> None:
    ethanol = world.molecules["ethanol"]
    entry = molecule_entry(results, ethanol, calculations_of(results, ethanol), edge="K")
    assert molecule_row(entry)["moments_muB"] is None
    s = entry.structure
    by_file = [0.25 * i for i in range(len(s))]
    magnetic, order = Structure.from_atoms(
        s.symbols, s.positions_A, moments_muB=[by_file[i] for i in entry.file_order]
    )
    assert order == tuple(range(len(s)))
    assert molecule_row(replace(entry, structure=magnetic))["moments_muB"] == by_file


def test_existing_output_is_kept_unless_forced(tmp_path: Path, results: Any) -> None:
    for export_format, name in (
        (ExportFormat.DATASET, "d.h5"),
        (ExportFormat.HDF5, "h"),
        (ExportFormat.PARQUET, "p"),
    ):
        export_campaign(results, CAMPAIGN, tmp_path / name, export_format)
        with pytest.raises(UserError, match="already exists"):
            export_campaign(results, CAMPAIGN, tmp_path / name, export_format)
        export_campaign(results, CAMPAIGN, tmp_path / name, export_format, overwrite=True)
        assert not list(tmp_path.rglob("*.part"))


def test_unknown_campaign_and_nothing_complete(tmp_path: Path, results: Any, world: Any) -> None:
    import dataclasses

    with pytest.raises(NotFound):
        export_campaign(results, "nobody", tmp_path / "d.h5", ExportFormat.DATASET)
    results.world = dataclasses.replace(world, molecules={"methane": world.molecules["methane"]})
    with pytest.raises(UserError, match=r"no molecule of quickstart is complete \(1 are not\)"):
        export_campaign(results, CAMPAIGN, tmp_path / "d.h5", ExportFormat.DATASET)
    assert list(tmp_path.iterdir()) == []
