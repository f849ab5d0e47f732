"""The commands on a real store."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from htxas.cli.export import export
from htxas.cli.molecule import molecule
from htxas.cli.query import query
from htxas.cli.site import site
from htxas.datafile import DatasetFile
from htxas.errors import NotFound, StructureError, UserError
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


@pytest.fixture
def run(filled_store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Call a command with its store swapped for the test's, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(filled_store, "close", lambda: None)  # the fixture closes it
    monkeypatch.setattr(Store, "open", staticmethod(lambda: filled_store))

    def call(command: click.Command, *arguments: str) -> Result:
        return CliRunner().invoke(command, arguments)

    return call


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def test_site_show(run: Any) -> None:
    assert "286.700 eV" in ok(run(site, "show", "ethanol/1"))
    document = json.loads(ok(run(site, "show", "ethanol/1", "--json")))
    assert document["state"] == "done"
    assert json.loads(ok(run(site, "show", document["key"][:12], "--json"))) == document
    assert document["provenance"]["libraries"] == {"numpy": "2"}


def test_failed_site(run: Any) -> None:
    assert "scf_unconverged" in ok(run(site, "show", "propanone/1", "-c", "quickstart"))
    assert isinstance(run(site, "plot", "propanone/1").exception, UserError)
    assert isinstance(run(site, "show", "ethanl/1").exception, NotFound)


def test_plots_have_fixed_names(run: Any, tmp_path: Path) -> None:
    assert ok(run(site, "plot", "ethanol/1")).strip() == "ethanol_1.png"
    assert ok(run(molecule, "plot", "ethanol")).strip() == "ethanol.png"
    ok(run(molecule, "plot", "propanone", "-o", "p.svg", "--sigma", "0.3"))
    assert {p.name for p in tmp_path.iterdir()} == {"ethanol_1.png", "ethanol.png", "p.svg"}


def test_molecule_show(run: Any) -> None:
    assert "complete  2 of 2 sites" in ok(run(molecule, "show", "ethanol"))
    document = json.loads(ok(run(molecule, "show", "propanone", "--json")))
    assert (document["complete"], document["spectrum"]) == (False, None)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ((), 8),
        (("--limit", "3"), 3),
        (("--limit", "0"), 8),
        (("--campaign", "quickstart", "--state", "done"), 5),
        (("--formula", "C2H6O"), 3),
        (("--smiles", "OCC", "--kind", "site"), 2),
        (("--contains", "O", "--contains", "C3"), 3),
        (("--energy", "287:",), 2),
        (("--energy", "286.6:287.5", "--sort", "-energy"), 2),
        (("--element", "C", "--edge", "K", "--engine", "fake"), 5),
        (("--state", "quarantined"), 0),
    ],
)  # fmt: skip
def test_query(run: Any, arguments: tuple[str, ...], count: int) -> None:
    assert len(json.loads(ok(run(query, *arguments, "--json")))) == count
    rows = list(csv.DictReader(io.StringIO(ok(run(query, *arguments, "--csv")))))
    assert len(rows) == count
    if count:
        assert rows[0]["campaigns"] == "quickstart"
    assert ("nothing matches" in ok(run(query, *arguments))) == (count == 0)


def test_what_was_corrected_is_told_and_found(run: Any, filled_store: Any) -> None:
    assert "corrections none" in " ".join(ok(run(site, "show", "ethanol/1")).split())
    key = json.loads(ok(run(site, "show", "ethanol/1", "--json")))["key"]
    changed = {
        "ladder": {"corrections": ["more_cycles", "level_shift"], "numerics": {"level_shift_Ha": 0.3}},
        "provenance.extra": {"another_state": ["ion"]},
    }
    filled_store._db["calculations"].update_one({"_id": key}, {"$set": changed})
    table = " ".join(ok(run(site, "show", "ethanol/1")).split())
    assert "corrections more_cycles, level_shift" in table
    assert "another state? ion: may not be" in table
    rows = list(csv.DictReader(io.StringIO(ok(run(query, "--corrected", "--csv")))))
    assert [(r["key"], r["corrections"], r["another_state"]) for r in rows] == [
        (key, "more_cycles level_shift", "ion")
    ]
    without = json.loads(ok(run(query, "--uncorrected", "--state", "done", "--json")))
    assert len(without) == 4
    assert {tuple(r["corrections"]) for r in without} == {()}


@pytest.mark.parametrize("energy", ["287:285", "285", ":", "a:b"])
def test_bad_energy_range(run: Any, energy: str) -> None:
    result = run(query, "--energy", energy)
    assert result.exit_code == 2
    assert "such as 285:287" in result.output


def test_bad_queries(run: Any) -> None:
    assert "such as N or O2" in run(query, "--contains", "Q").output
    assert isinstance(run(query, "--smiles", "C((").exception, StructureError)
    assert isinstance(run(query, "--campaign", "quickstrat").exception, NotFound)
    assert "exclude each other" in run(query, "--json", "--csv").output


@pytest.mark.parametrize(
    ("name", "output"),
    [("hdf5", "quickstart_hdf5"), ("dataset", "quickstart.h5"), ("parquet", "quickstart_parquet")],
)
def test_export(run: Any, tmp_path: Path, name: str, output: str) -> None:
    result = run(export, "quickstart", "--format", name)
    assert f"{output}: 1 molecule, 2 sites" in ok(result)
    assert "2 incomplete, left out: methane, propanone" in result.stderr
    assert (tmp_path / output).exists()
    assert "already exists" in str(run(export, "quickstart", "--format", name).exception)
    summary = json.loads(
        ok(run(export, "quickstart", "--format", name, "--force", "--include-incomplete", "--json"))
    )
    assert (summary["molecules"], summary["incomplete"]) == (2, ["methane", "propanone"])


def test_export_spectrum_is_the_one_the_store_assembled(run: Any, filled_store: Any, tmp_path: Path) -> None:
    ok(run(export, "quickstart", "--format", "dataset", "-o", "d.h5"))
    stored = filled_store.assemble(filled_store.molecule("quickstart", "ethanol")).spectrum
    with DatasetFile(tmp_path / "d.h5") as data:
        got = data.molecule("ethanol").spectrum
    assert got is not None
    assert got.start == stored.start
    assert abs(got.intensity - stored.intensity).max() < 1e-7


def measured_file(run: Any, path: Path, *, shift_eV: float, factor: float, column: str = "f_per_eV") -> Path:
    """Write ethanol's own spectrum, moved and scaled."""
    spectrum = json.loads(ok(run(molecule, "show", "ethanol", "--json")))["spectrum"]
    rows = zip(spectrum["energies_eV"], spectrum["total_x_y_z"], strict=True)
    lines = [f"{e + shift_eV:.4f},{factor * columns[0]:.8g}" for e, columns in rows]
    path.write_text("\n".join([f"energy_eV,{column}", *lines]) + "\n")
    return path


def test_a_measured_spectrum_is_laid_over_a_molecule(run: Any, tmp_path: Path) -> None:
    path = measured_file(run, tmp_path / "m.csv", shift_eV=0.6, factor=0.9)
    said = ok(run(molecule, "measured", "ethanol", str(path)))
    assert "measured +0.60 eV from computed, the best of -3 to 3 eV" in said
    assert "measured 0.9 of computed" in said
    assert said.splitlines()[-1] == "ethanol-measured.png"
    assert (tmp_path / "ethanol-measured.png").stat().st_size > 10_000
    given = json.loads(
        ok(run(molecule, "measured", "ethanol", str(path), "--shift", "0.5", "--range", "-2", "6", "--json"))
    )
    assert given["shift_eV"] == 0.5
    assert given["searched_eV"] is None
    assert given["one_unit"]
    assert given["unshifted"] < given["correlation"] < 1
    raw = measured_file(run, tmp_path / "raw.csv", shift_eV=0.6, factor=300.0, column="mutrans")
    assert "strength     not in one unit: measured divided by 300" in ok(
        run(molecule, "measured", "ethanol", str(raw))
    )


def test_what_cannot_be_laid_over_is_refused_in_a_line(run: Any, tmp_path: Path) -> None:
    path = measured_file(run, tmp_path / "m.csv", shift_eV=0.0, factor=1.0)
    unfinished = run(molecule, "measured", "propanone", str(path), "-c", "quickstart").exception
    assert isinstance(unfinished, UserError)
    assert "1 of 2 sites are not done" in str(unfinished)
    short = tmp_path / "short.csv"
    short.write_text("\n".join(path.read_text().splitlines()[:40]) + "\n")
    apart = run(molecule, "measured", "ethanol", str(short)).exception
    assert isinstance(apart, UserError)
    assert "ethanol, short.csv" in str(apart)
    assert "are left to compare" in str(apart)


def test_a_spectrum_of_another_absorber_is_refused(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "o.xdi"
    head = "# XDI/1.0\n# Element.symbol: O\n# Element.edge: K\n# Column.1: energy eV\n# Column.2: mutrans\n#---\n"
    path.write_text(head + "\n".join(f"{280 + i} {i % 7}" for i in range(40)) + "\n")
    error = run(molecule, "measured", "ethanol", str(path)).exception
    assert isinstance(error, UserError)
    assert "says it is O K; ethanol was computed at C K" in str(error)
