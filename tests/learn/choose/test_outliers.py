from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.assets import workflow
from htxas.cli.main import _run
from htxas.datafile import DatasetFile, DatasetWriter, MoleculeEntry, SiteEntry
from htxas.domain.calculation import Calculation, Kind
from htxas.domain.spectrum import Sticks
from htxas.domain.structure import Structure
from htxas.errors import DatasetError
from htxas.learn.choose.environment import environment, table_of
from htxas.learn.choose.kernel import kernel_regression
from htxas.learn.choose.outliers import judge, threshold
from htxas.learn.choose.sites import SiteTable, file_sites, store_sites, tabulate
from htxas.store.records import MoleculeRecord, PlannedCalculation, SiteRef, StructureRecord
from tests.learn.test_store_source import PARAMETERS, _finish, _site_result

REFERENCE = workflow("reference/reference.h5")


@pytest.fixture(scope="module")
def table() -> SiteTable:
    return tabulate(file_sites([REFERENCE]))


@pytest.fixture(scope="module")
def flagged(table: SiteTable) -> list[int]:
    return judge(table).flagged


def _row(table: SiteTable, molecule: str, atom: int) -> int:
    names = zip(table.molecules, table.file_atoms, strict=True)
    return next(i for i, name in enumerate(names) if name == (molecule, atom))


@pytest.mark.slow
def test_the_reference_dataset_has_few(table: SiteTable, flagged: list[int]) -> None:
    assert len(table) == 1421
    assert len(flagged) <= 6


@pytest.mark.slow
def test_planted_errors_are_found(table: SiteTable, flagged: list[int]) -> None:
    """One site shifted by 2 eV; two unlike sites with each other's result."""
    energies = {k: v.copy() for k, v in table.energies_eV.items()}
    spectra = table.spectra.copy()
    shifted = _row(table, "gdb_102", 4)
    pair = [_row(table, "gdb_12", 1), _row(table, "gdb_39", 2)]  # of formamide and butane
    for values in energies.values():
        values[shifted] += 2.0
        values[pair] = values[pair[::-1]]
    spectra[pair] = spectra[pair[::-1]]
    planted = judge(dataclasses.replace(table, energies_eV=energies, spectra=spectra)).flagged
    assert {shifted, *pair} <= set(planted)
    assert len(set(planted) - set(flagged) - {shifted, *pair}) <= 2


def _shifted(site: SiteEntry, shift_eV: float) -> SiteEntry:
    assert site.ionization_eV is not None
    return dataclasses.replace(
        site,
        excitation_energy_eV=site.excitation_energy_eV + shift_eV,
        ionization_eV=site.ionization_eV + shift_eV,
        sticks=Sticks(site.sticks.energies_eV + shift_eV, site.sticks.strengths),
    )


def _with_shift(entry: MoleculeEntry, shift_eV: float) -> MoleculeEntry:
    return dataclasses.replace(entry, sites=(_shifted(entry.sites[0], shift_eV), *entry.sites[1:]))


@pytest.fixture(scope="module")
def entries() -> list[MoleculeEntry]:
    """Return a hundred molecules of the reference dataset, one of them with a site 2.5 eV too high."""
    with DatasetFile(REFERENCE) as data:
        names = sorted(data.names())[::3]
        found = [data.molecule(name) for name in names]
    index = next(i for i, e in enumerate(found) if len(e.sites) == 6)
    found[index] = _with_shift(found[index], 2.5)
    return [found[index], *found[:index], *found[index + 1 :]]


@pytest.mark.slow
def test_command_on_a_file(
    entries: list[MoleculeEntry], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "planted.h5"
    with DatasetFile(REFERENCE) as data:
        meta = data.meta
    with DatasetWriter(path, meta) as writer:
        for entry in entries:
            writer.add(entry)
    wrong = f"{entries[0].name}/{entries[0].sites[0].file_atom}"
    with DatasetWriter(tmp_path / "other.h5", dataclasses.replace(meta, engine="other")) as writer:
        writer.add(entries[1])
    assert _run(["site", "outliers", "--file", str(path), "--file", str(tmp_path / "other.h5")]) == 1
    assert "other.h5: was not computed as planted.h5 was" in capsys.readouterr().err
    halves = [tmp_path / "half.h5", tmp_path / "rest.h5"]
    for half, part in zip(halves, (entries[::2], entries[1::2]), strict=True):
        with DatasetWriter(half, meta) as writer:
            for entry in part:
                writer.add(entry)
    both = [argument for half in halves for argument in ("--file", str(half))]
    assert _run(["site", "outliers", *both, "--json"]) == 0
    in_two = json.loads(capsys.readouterr().out)
    assert _run(["site", "outliers", "--file", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert in_two == document
    assert document["sites"][0]["site"] == wrong
    assert document["judged"] == sum(len(e.sites) for e in entries)
    assert any(v["flagged"] for v in document["sites"][0]["views"].values())
    assert _run(["site", "outliers", "--file", str(path), "--top", "1"]) == 0
    shown = capsys.readouterr().out
    assert wrong in shown
    assert "judged; score" in shown


@pytest.mark.mongo
@pytest.mark.slow
def test_command_on_a_campaign(
    store: Any,
    entries: list[MoleculeEntry],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _fill(store, entries)
    rows = list(store_sites(store, "planted"))
    assert len(rows) == sum(len(e.sites) for e in entries) - 1
    from htxas.store.store import Store

    monkeypatch.setattr(Store, "open", staticmethod(lambda: nullcontext(store)))
    assert _run(["site", "outliers", "planted", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["sites"][0]
    site = f"{entries[0].name}/{entries[0].sites[0].file_atom}"
    assert first["site"] == site
    assert first["show"] == f"htxas site show {site} --campaign planted"
    assert first["attempts"] == 1
    assert first["corrections"] == []
    assert _run(["site", "outliers", "planted"]) == 0
    assert f"look: htxas site show {site} --campaign planted" in capsys.readouterr().out


def _fill(store: Any, entries: list[MoleculeEntry]) -> None:
    store.put_campaign("planted", {"engine": "fake", "parameters": {"site": PARAMETERS, "ground": None}})
    store.put_structures([StructureRecord(e.structure, e.smiles, {}) for e in entries])
    for entry in entries:
        key, canonical = entry.structure.key, {f: i for i, f in enumerate(entry.file_order)}
        calculations = [
            Calculation(Kind.SITE, key, "fake", PARAMETERS, "C", "K", canonical[s.file_atom])
            for s in entry.sites
        ]
        store.put_calculations("planted", [PlannedCalculation(c, 1.0) for c in calculations])
        refs = tuple(
            SiteRef(c.key, c.atom or 0, s.file_atom, "C", s.multiplicity, s.equivalent_file_atoms)
            for c, s in zip(calculations, entry.sites, strict=True)
        )
        store.put_molecules(
            [MoleculeRecord("planted", entry.name, key, None, entry.smiles, entry.file_order, refs)]
        )
        for calculation, site in zip(calculations, entry.sites, strict=True):
            if (entry, site) == (entries[-1], entries[-1].sites[-1]):
                continue  # one is not done
            _finish(store, calculation, entry.structure, _site_result(site))


def test_what_cannot_be_judged(table: SiteTable) -> None:
    few = dataclasses.replace(
        table,
        keys=table.keys[:50],
        molecules=table.molecules[:50],
        groups=table.groups[:50],
        energies_eV={k: v[:50] for k, v in table.energies_eV.items()},
    )
    with pytest.raises(DatasetError, match="do not tell what is usual"):
        judge(few)


def test_user_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["site", "outliers"]) == 1
    assert _run(["site", "outliers", "x", "--file", "y.h5"]) == 1
    assert _run(["site", "outliers", "--file", "none.h5"]) == 1
    assert capsys.readouterr().err.count("\n") == 3


def test_threshold_is_that_of_an_exponential_tail() -> None:
    score = np.random.default_rng(0).exponential(size=200_000)
    assert threshold(score, 2.0) == pytest.approx(np.log(200_000 / 2.0), rel=0.05)
    score[:100] += 1000.0
    assert threshold(score, 2.0) == pytest.approx(np.log(200_000 / 2.0), rel=0.05)


def test_environment_does_not_change_when_the_molecule_is_turned_or_renumbered() -> None:
    rng = np.random.default_rng(0)
    symbols = ["C", "C", "O", "H", "H", "N"]
    positions = rng.uniform(-2, 2, (6, 3)) * np.array([1.0, 1.2, 1.5])
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = [3, 5, 0, 2, 4, 1]
    first = Structure(tuple(symbols), positions)
    second = Structure(tuple(symbols[i] for i in order), (positions @ turn.T)[order] + 3.0)
    a, b = environment(first, 0), environment(second, order.index(0))
    assert set(a) == set(b)
    assert all(np.allclose(a[c], b[c], atol=1e-5) for c in a)
    rows = table_of([a, environment(Structure(("C", "F"), np.array([[0, 0, 0], [1.3, 0, 0]])), 0)])
    assert rows.shape[0] == 2
    assert rows[1].sum() > 0


def test_environment_of_a_crystal_is_that_of_its_supercell() -> None:
    cell = np.array([[3.0, 0, 0], [0.5, 3.5, 0], [0, 0.2, 4.0]])
    positions = np.array([[0.0, 0, 0], [1.4, 1.5, 1.9]])
    small = environment(Structure(("Mg", "O"), positions, cell), 0)
    double = np.vstack([positions, positions + cell[0]])
    large = environment(Structure(("Mg", "O", "Mg", "O"), double, cell * np.array([[2], [1], [1]])), 2)
    assert all(np.allclose(small[c], large[c], atol=1e-4) for c in small)


def test_kernel_regression_learns_and_is_kernel_ridge_on_few_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    y = np.column_stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2]])
    said = kernel_regression(x[:150], y[:150], x[150:], seed=0)
    assert np.corrcoef(said[:, 0], y[150:, 0])[0, 1] > 0.9
    from sklearn.kernel_ridge import KernelRidge

    mean, scale = x[:150].mean(0), x[:150].std(0)
    peer = KernelRidge(alpha=1e-3, kernel="laplacian", gamma=0.3 / 4)
    peer.fit((x[:150] - mean) / scale, y[:150] - y[:150].mean(0))
    assert np.allclose(said, peer.predict((x[150:] - mean) / scale) + y[:150].mean(0), atol=1e-4)


def test_a_short_site_is_not_judged() -> None:
    with DatasetFile(REFERENCE) as data:
        entry = data.molecule("gdb_19574")
    short = dataclasses.replace(entry.sites[0], window_eV=5.0)

    def rows() -> Iterator[Any]:
        from htxas.learn.choose import sites

        for site in (short, entry.sites[1]):
            yield sites.SiteRow(
                site.key, entry.name, site.file_atom, "g", site.excitation_energy_eV, None,
                sites._binned(sites._broadened(site), site.excitation_energy_eV, site.window_eV, "x"),
                environment(entry.structure, 0), entry.smiles,
            )  # fmt: skip

    found = tabulate(rows())
    assert len(found) == 1
    assert found.left_out == {"not complete to 15.4 eV above its onset": [f"{entry.name}/{short.file_atom}"]}
