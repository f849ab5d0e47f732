from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from htxas.datafile import DatasetMeta, DatasetWriter, GroundEntry, MoleculeEntry, SiteEntry
from htxas.domain.dos import Pdos
from htxas.domain.identity import content_key
from htxas.domain.spectrum import Sticks, broaden
from htxas.domain.structure import Structure
from htxas.learn.data.recipe import Recipe
from htxas.learn.data.records import Method, SpectrumRecord


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path / "home"))


def chain_smiles(index: int) -> str:
    """Return a distinct real SMILES per index: chains over C, N, O, F with a double bond somewhere."""
    rng = np.random.default_rng(index)
    length = 4 + index % 5
    body = ["C"] + [("C", "C", "N", "O")[rng.integers(4)] for _ in range(length - 2)] + ["C"]
    text = "".join(body)
    return text + ("=C" if index % 2 else "") + "C" * (index // 40) + ("F" if index % 3 == 0 else "")


def make_structure(index: int, smiles: str) -> Structure:
    """Return heavy atoms of ``smiles`` in a row plus one hydrogen: only composition and key matter."""
    heavy = [c for c in smiles if c in "CNOF"]
    symbols = [*heavy, "H"]
    positions = [[1.4 * i, 0.001 * index, 0.0] for i in range(len(symbols))]
    return Structure.from_atoms(symbols, positions)[0]


@dataclass(frozen=True)
class Truth:
    """Hidden causes of a synthetic molecule: pi* splitting and onset decide spectrum and targets."""

    splitting_eV: float
    onset_eV: float


def truth_of(index: int) -> Truth:
    rng = np.random.default_rng(1000 + index)
    return Truth(float(rng.uniform(1.0, 6.0)), float(rng.uniform(286.0, 289.0)))


def sticks_of(index: int) -> Sticks:
    truth = truth_of(index)
    first, second = truth.onset_eV, truth.onset_eV + truth.splitting_eV
    ladder = np.arange(truth.onset_eV + 8.0, truth.onset_eV + 24.0, 1.0)
    energies = np.concatenate([[first, second], ladder])
    strength = np.concatenate([[0.04, 0.03], np.full(len(ladder), 0.004)])
    return Sticks(energies, np.column_stack([strength] * 3))


def make_record(index: int, **changes: Any) -> SpectrumRecord:
    smiles = chain_smiles(index)
    truth = truth_of(index)
    structure = changes.get("structure") or make_structure(index, smiles)
    fields: dict[str, Any] = {
        "name": f"m{index:03d}",
        "key": structure.key,
        "smiles": smiles,
        "composition": structure.composition,
        "structure": structure,
        "spectrum": broaden(sticks_of(index)),
        "excitation_energy_eV": truth.onset_eV,
        "complete_to_eV": truth.onset_eV + 20.0,
        "method": Method("fake", "C", "K", content_key({"preset": "x"})),
        "ground": {
            "gap_eV": 2.0 + truth.splitting_eV,
            "homo_eV": -6.0 - 0.3 * truth.splitting_eV,
            "lumo_eV": -4.0 + 0.7 * truth.splitting_eV,
            "dipole_D": 0.2 * truth.splitting_eV**2,
            "total_energy_eV": -1000.0 - index,
        },
    }
    return SpectrumRecord(**{**fields, **changes})


@dataclass(frozen=True)
class ListSource:
    """A source over records in memory."""

    items: Sequence[SpectrumRecord]

    @property
    def query(self) -> dict[str, Any]:
        return {"list": len(self.items)}

    @property
    def label(self) -> str:
        return "list"

    def records(self, recipe: Recipe) -> Iterator[SpectrumRecord]:
        yield from self.items


def make_entry(index: int) -> MoleculeEntry:
    record = make_record(index)
    n = len(record.structure)
    levels = np.array([record.ground["homo_eV"], record.ground["lumo_eV"]])
    weights = np.zeros((2, n, 3))
    weights[:, 0, 0] = 1.0
    truth = truth_of(index)
    site = SiteEntry(
        key=f"site{index}",
        file_atom=0,
        element="C",
        edge="K",
        multiplicity=1,
        equivalent_file_atoms=(0,),
        excitation_energy_eV=truth.onset_eV,
        ionization_eV=None,
        scale="synthetic",
        energies_eV={"ground": record.ground["total_energy_eV"]},
        hole_overlap=1.0,
        window_eV=20.0,
        sticks=sticks_of(index),
    )
    return MoleculeEntry(
        name=record.name,
        structure=record.structure,
        file_order=tuple(range(n)),
        ground_key=f"ground{index}",
        smiles=record.smiles,
        molecular_weight_u=1.0,
        complete=True,
        missing=(),
        spectrum=record.spectrum,
        ground=GroundEntry(
            total_energy_eV=record.ground["total_energy_eV"],
            homo_eV=record.ground["homo_eV"],
            lumo_eV=record.ground["lumo_eV"],
            dipole_D=np.array([record.ground["dipole_D"], 0.0, 0.0]),
            pdos=Pdos(levels, np.array([2.0, 0.0]), weights),
        ),
        sites=(site,),
    )


def write_file(path: Path, count: int) -> Path:
    meta = DatasetMeta(
        "synthetic", "fake", {"parameters": {"site": {"preset": "x"}, "ground": {}}}, "htxas test"
    )
    with DatasetWriter(path, meta) as writer:
        for index in range(count):
            writer.add(make_entry(index))
    return path


@pytest.fixture(scope="session")
def synthetic() -> SimpleNamespace:
    """Return the builders of synthetic molecules."""
    return SimpleNamespace(
        record=make_record,
        structure=make_structure,
        records=lambda n: [make_record(i) for i in range(n)],
        source=ListSource,
        entry=make_entry,
        truth=truth_of,
        write_file=write_file,
    )


@pytest.fixture(scope="session")
def dataset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("learn") / "synthetic.h5", 120)


TRAINING = """\
name: synthetic
dataset:
  source: {{file: {file}}}
  window: {{start_eV: -4.0, points: 240, step_eV: 0.1, align: excitation_energy}}
  split: {{validation: 0.15, test: 0.2, seed: 1}}
targets: [gap, homo, molecular_weight]
models: [A, B]
network: {{widths: [16], members: 2, epochs: 60, patience: 60, learning_rate: 5.0e-3}}
"""


@pytest.fixture
def training_file(tmp_path: Path, dataset_file: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(TRAINING.format(file=os.fspath(dataset_file)))
    return path
