"""Models of continuous spectra: computed sites, and FEFF's own file, through one door."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from htxas.domain.spectrum import Curve
from htxas.domain.structure import Structure
from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset, freeze
from htxas.learn.data.recipe import Align, ModelKind, Recipe, Rows, Window
from htxas.learn.data.records import Continuum, Method, SiteRecord, SpectrumRecord
from htxas.learn.nets.network import Network
from htxas.learn.runs.run import execute
from htxas.learn.runs.spec import RunSpec
from htxas.learn.serve.formats.measured import MeasuredSpectrum
from htxas.learn.serve.formats.read import read_spectrum
from htxas.learn.serve.model import Model
from htxas.learn.serve.neighbours import nearest
from htxas.learn.serve.options import Normalise, Options
from htxas.learn.serve.predict import predict_measured, predict_record

ABOVE = np.linspace(-4.0, 40.0, 221)
RECIPE = Recipe(("edge_energy",), window=Window(-3.5, 60, 0.5, Align.EDGE), rows=Rows.SITE)
SMOOTH = dataclasses.replace(RECIPE, sigma_eV=1.5, window=Window(3.0, 60, 0.5, Align.EDGE))


def edge_of(index: int) -> float:
    return 8980.0 + index / 7


def values_of(index: int) -> Any:
    return (1 + 0.1 * np.sin(ABOVE * 0.3 + index / 7)) / (1 + np.exp(-ABOVE))


def crystal(index: int) -> SpectrumRecord:
    a = 4.0 + 0.02 * index
    structure = Structure.from_atoms(["Cu", "O"], [[0, 0, 0], [a / 2, a / 2, a / 2]], np.diag([a, a, a]))[0]
    curve = Curve(ABOVE + edge_of(index), np.repeat(values_of(index)[:, None], 3, axis=1))
    site = SiteRecord(
        name="0",
        key=f"{index:032x}",
        multiplicity=1,
        excitation_energy_eV=None,
        complete_to_eV=edge_of(index) + 40,
        atoms=(0,),
        continuum=Continuum(curve, edge_of(index), 1.73, "FEFF; not aligned"),
    )
    return SpectrumRecord(
        name=f"mp-{index}",
        key=structure.key,
        smiles=None,
        composition=structure.composition,
        structure=structure,
        spectrum=None,
        excitation_energy_eV=None,
        complete_to_eV=9100.0,
        method=Method("feff", "Cu", "K", "f" * 32),
        ground={},
        sites=(site,),
    )


def xmu(path: Path, index: int) -> MeasuredSpectrum:
    head = (
        "# CuO   FEFF 9.9.1\n# Abs   Z=29 Rmt= 1.030 Rnm= 1.320 K  shell\n# Gam_ch=1.730E+00 H-L exch\n"
        "# Mu=-5.000E+00eV kf=1.613E+00\n#  xsedge+ 50, used to normalize mu 7.8E-03\n#  omega e k mu mu0 chi @#\n"
    )
    rows = (
        f" {e + edge_of(index):.7f} {e - 5:.7f} 0.1 {v:.9E} 1.0 0.0\n"
        for e, v in zip(ABOVE, values_of(index), strict=True)
    )
    path.write_text(head + "".join(rows))
    return read_spectrum(path)


@pytest.fixture(scope="module", params=[RECIPE, SMOOTH], ids=["as it is", "broadened"])
def pair(
    request: Any, synthetic: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Dataset]:
    folder = tmp_path_factory.mktemp("continua")
    dataset = freeze(synthetic.source([crystal(i) for i in range(60)]), request.param, folder)
    network = Network(widths=(8,), members=2, epochs=20, patience=20)
    spec = RunSpec(dataset.key, ("edge_energy",), ModelKind.A, network, 0)
    execute(str(dataset.path), spec, str(folder / "models"))
    return Model.load(folder / "models" / spec.folder), dataset


def test_a_computed_site_and_feffs_file_of_it_are_the_same_input(
    pair: tuple[Model, Dataset], tmp_path: Path
) -> None:
    model, dataset = pair
    assert model.of_continua
    (site,) = predict_record(model, crystal(7))
    row = dataset.spectra[dataset.ids.index("mp-7/0")]
    got = predict_measured(model, xmu(tmp_path / "xmu.dat", 7), Options(instrument_sigma_eV=0.0))
    assert got.prepared is not None
    assert got.prepared.row == pytest.approx(row, abs=1e-5)
    assert got.estimates[0].value == pytest.approx(site.estimates[0].value, rel=1e-6)
    steps = {s.name: s for s in got.prepared.steps}
    assert "as the file says" in steps["edge"].text
    assert "straight lines" in steps["resampling"].text
    assert any("core-hole width of 1.73 eV" in note for note in got.notes)
    (near, *_) = nearest(model, dataset, site.z)
    assert near.molecule == "CuO"


def test_what_is_asked_of_measured_spectra_of_such_models(
    pair: tuple[Model, Dataset], tmp_path: Path
) -> None:
    model, _ = pair
    spectrum = xmu(tmp_path / "xmu.dat", 7)
    expected = predict_measured(model, spectrum, Options(instrument_sigma_eV=0.0)).prepared
    assert expected is not None
    raw = dataclasses.replace(spectrum, intensity=5 * spectrum.intensity, edge_eV=None)
    raw = dataclasses.replace(raw, scale=type(raw.scale).ARBITRARY)
    span = (edge_of(7) + 10, edge_of(7) + 38)
    asked = Options(
        instrument_sigma_eV=0.0, normalise=Normalise.EDGE_STEP, post_edge_eV=span, edge_eV=edge_of(7)
    )
    got = predict_measured(model, raw, asked).prepared
    assert got is not None
    assert got.row == pytest.approx(expected.row, rel=0.05)
    for changed, options, words in [
        (raw, dataclasses.replace(asked, edge_eV=None), "give --edge EV"),
        (
            raw,
            dataclasses.replace(asked, normalise=Normalise.NONE, post_edge_eV=None),
            "in arbitrary units, the model takes absorption",
        ),
        (spectrum, Options(auto_onset=True), "energies above the threshold: no onset is needed"),
        (spectrum, Options(shift_eV=2000.0), "is no onset of Cu K"),
    ]:
        with pytest.raises(DatasetError, match=words):
            predict_measured(model, changed, options)
    cut = dataclasses.replace(
        spectrum, energies_eV=spectrum.energies_eV[40:], intensity=spectrum.intensity[40:]
    )
    with pytest.raises(DatasetError, match="lacking: "):
        predict_measured(model, cut, Options(instrument_sigma_eV=0.0))


def test_a_computed_site_that_does_not_fill_the_window_is_refused(pair: tuple[Model, Dataset]) -> None:
    record = crystal(3)
    continuum = record.sites[0].continuum
    assert continuum is not None
    short = Curve(continuum.curve.energies_eV[:100], continuum.curve.intensity[:100])
    site = dataclasses.replace(record.sites[0], continuum=dataclasses.replace(continuum, curve=short))
    with pytest.raises(DatasetError, match=r"site mp-3/0: is known from .*relative to the threshold"):
        predict_record(pair[0], dataclasses.replace(record, sites=(site,)))
    with pytest.raises(DatasetError, match="none of its sites is done"):
        predict_record(pair[0], dataclasses.replace(record, sites=(), missing=("0",)))
