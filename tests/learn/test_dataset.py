from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from htxas.domain.spectrum import Spectrum, broaden
from htxas.errors import DatasetError
from htxas.learn.data.dataset import freeze, load
from htxas.learn.data.recipe import MIN_MOLECULES, Recipe, Window
from htxas.learn.data.source import FileSource
from htxas.learn.data.split import Split, split_by_group

RECIPE = Recipe(targets=("gap", "sp3_ratio", "molecular_weight"), seed=3)


def test_freezing_twice_or_in_another_order_gives_the_same_dataset(
    synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    records = synthetic.records(60)
    first = freeze(synthetic.source(records), RECIPE, tmp_path)
    stamp = (first.path / "card.json").stat().st_mtime_ns
    second = freeze(synthetic.source(records[::-1]), RECIPE, tmp_path)
    assert second.path == first.path
    assert (second.path / "card.json").stat().st_mtime_ns == stamp
    assert [p.name for p in tmp_path.iterdir()] == [first.key[:16]]


def test_the_hash_follows_content_and_recipe(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    records = synthetic.records(60)
    keys = {freeze(synthetic.source(records), RECIPE, tmp_path).key}
    changed = dataclasses.replace(records[7], ground={**records[7].ground, "gap_eV": 3.21})
    for items, recipe in [
        ([*records[:7], changed, *records[8:]], RECIPE),
        (records[:-1], RECIPE),
        (records, dataclasses.replace(RECIPE, seed=4)),
        (records, dataclasses.replace(RECIPE, window=Window(points=200))),
    ]:
        keys.add(freeze(synthetic.source(items), recipe, tmp_path).key)
    assert len(keys) == 5


def test_arrays_card_and_units(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    data = freeze(synthetic.source(synthetic.records(60)), RECIPE, tmp_path)
    assert isinstance(data.spectra, np.memmap)
    assert data.spectra.shape == (60, 240)
    assert data.spectra.dtype == np.float32
    assert data.target("gap")[5] == pytest.approx(2.0 + synthetic.truth(5).splitting_eV)
    card = json.loads((data.path / "card.json").read_text())
    assert [(t["name"], t["unit"]) for t in card["targets"]] == [
        ("gap", "eV"),
        ("sp3_ratio", "1"),
        ("molecular_weight", "Da"),
    ]
    assert card["targets"][1]["obtained_from"] == {"smiles": 60}
    assert card["counts"]["train"] + card["counts"]["validation"] + card["counts"]["test"] == 60
    assert card["broadening_sigma_eV"] == 0.5
    assert data.recipe == RECIPE
    with pytest.raises(DatasetError, match="no target 'homo'"):
        data.target("homo")


def test_sp3_ratio_without_smiles_says_so(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    records = [dataclasses.replace(r, smiles=None) for r in synthetic.records(55)]
    data = freeze(synthetic.source(records), RECIPE, tmp_path)
    assert data.card["targets"][1]["obtained_from"] == {"coordination": 55}


def test_conformers_of_a_molecule_stay_on_one_side(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    records = synthetic.records(60)
    twins = [
        dataclasses.replace(r, name=f"{r.name}-b", structure=synthetic.structure(i + 500, r.smiles))
        for i, r in enumerate(records)
    ]
    data = freeze(synthetic.source([*records, *twins]), RECIPE, tmp_path)
    side = dict(zip(data.ids, data.splits["molecule"].tolist(), strict=True))
    assert all(side[r.name] == side[f"{r.name}-b"] for r in records)
    assert data.card["counts"]["rows"] == 120
    assert data.card["counts"]["molecules"] <= 60


def test_split_does_not_depend_on_order_and_has_the_asked_sizes() -> None:
    groups = [f"g{i % 100}" for i in range(300)]
    split = split_by_group(groups, validation=0.15, test=0.2, seed=0)
    assert np.array_equal(split[::-1], split_by_group(groups[::-1], validation=0.15, test=0.2, seed=0))
    assert [(split == s).sum() for s in Split] == [195, 45, 60]
    assert not np.array_equal(split, split_by_group(groups, validation=0.15, test=0.2, seed=1))


def test_growing_a_dataset_hardly_moves_molecules() -> None:
    old = [f"g{i}" for i in range(300)]
    before = dict(zip(old, split_by_group(old, validation=0.15, test=0.15, seed=0), strict=True))
    new = [f"g{i}" for i in range(600)]
    after = dict(zip(new, split_by_group(new, validation=0.15, test=0.15, seed=0), strict=True))
    assert sum(before[g] != after[g] for g in old) < 30


def _nan(record: Any) -> Any:
    spectrum = record.spectrum
    intensity = spectrum.intensity.copy()
    intensity[50] = np.nan
    return {"spectrum": Spectrum(spectrum.start, spectrum.step_eV, intensity, spectrum.sigma_eV)}


REFUSED = {
    "mixed sigma": (
        lambda s, r: {"spectrum": broaden(_sticks(s), sigma_eV=0.8)},
        "sigma 0.8 eV and step 0.1 eV differ",
    ),
    "mixed step": (lambda s, r: {"spectrum": broaden(_sticks(s), step_eV=0.05)}, "step 0.05"),
    "mixed method": (lambda s, r: {"method": dataclasses.replace(r.method, engine="other")}, "one method"),
    "nan in spectrum": (lambda s, r: _nan(r), "not finite"),
    "nan in target": (lambda s, r: {"ground": {"gap_eV": float("nan")}}, "gap is not a finite number"),
    "no target": (lambda s, r: {"ground": {}}, "has no gap_eV"),
    "window": (
        lambda s, r: {"complete_to_eV": r.excitation_energy_eV + 12.0},
        "1 of 60 molecules are not complete",
    ),
    "twice": (lambda s, r: {"name": "m000"}, "occurs twice"),
    "bad smiles": (lambda s, r: {"smiles": "C(("}, "not a SMILES"),
}


def _sticks(synthetic: SimpleNamespace) -> Any:
    return synthetic.entry(9).sites[0].sticks


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_molecule(case: str, synthetic: SimpleNamespace, tmp_path: Path) -> None:
    change, words = REFUSED[case]
    records = synthetic.records(60)
    records[9] = dataclasses.replace(records[9], **change(synthetic, records[9]))
    with pytest.raises(DatasetError, match=words) as caught:
        freeze(synthetic.source(records), RECIPE, tmp_path)
    assert records[9].name in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_uncovered_molecules_can_be_left_out_and_are_counted(
    synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    records = synthetic.records(60)
    records[9] = dataclasses.replace(records[9], complete_to_eV=300.0)
    with pytest.raises(DatasetError, match=r"window.points: \d+ covers all"):
        freeze(synthetic.source(records), RECIPE, tmp_path)
    data = freeze(synthetic.source(records), dataclasses.replace(RECIPE, drop_uncovered=True), tmp_path)
    assert data.card["counts"]["left_out"] == {"window not covered": 1}
    assert data.card["left_out"] == {"window not covered": ["m009"]}
    assert "m009" not in data.ids


def test_a_dozen_molecules_train_nothing(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"12 complete molecules; training needs at least {MIN_MOLECULES}"):
        freeze(synthetic.source(synthetic.records(12)), RECIPE, tmp_path)


def test_a_damaged_dataset_is_refused(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    data = freeze(synthetic.source(synthetic.records(60)), RECIPE, tmp_path)
    np.save(data.path / "ratios.npy", np.zeros((3, 3), dtype=np.float32))
    with pytest.raises(DatasetError, match="the card says"):
        load(data.path)
    (data.path / "targets.npy").unlink()
    with pytest.raises(DatasetError, match="not a frozen dataset"):
        load(data.path)


def test_dataset_file_is_a_source(dataset_file: Path, synthetic: SimpleNamespace, tmp_path: Path) -> None:
    data = freeze(FileSource(dataset_file), RECIPE, tmp_path)
    assert len(data.ids) == 120
    from_memory = freeze(synthetic.source(synthetic.records(120)), RECIPE, tmp_path)
    assert np.allclose(data.spectra, from_memory.spectra, rtol=1e-5, atol=1e-7)
    assert np.array_equal(data.splits["molecule"], from_memory.splits["molecule"])


def test_incomplete_molecules_of_a_file_are_not_used(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    from htxas.datafile import DatasetMeta, DatasetWriter

    path = tmp_path / "partial.h5"
    with DatasetWriter(path, DatasetMeta("c", "fake", {"parameters": {"site": {}}}, "test")) as writer:
        for i in range(56):
            entry = synthetic.entry(i)
            writer.add(entry if i % 10 else dataclasses.replace(entry, complete=False, missing=("k",)))
    data = freeze(FileSource(path), RECIPE, tmp_path / "sets")
    assert len(data.ids) == 50
