from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from htxas.learn.data.door import open_dataset
from htxas.learn.runs.config import read_plan
from htxas.learn.runs.training import Trained, train_plan
from htxas.learn.serve.formats.measured import Intensity, MeasuredSpectrum
from htxas.learn.serve.model import Model, find_model

TRAINING = """\
name: t
dataset:
  source: {{file: {file}}}
  curves: [{{name: pdos, points: 200}}]
targets: [gap, pdos]
network: {{widths: [16], members: 3, epochs: 80, patience: 80, learning_rate: 5.0e-3}}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, dataset_file: Path) -> Trained:
    """Return a training of the gap and a density of states, Model-A and Model-B."""
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "t.yaml"
    path.write_text(TRAINING.format(file=dataset_file))
    plan = read_plan(path)
    return train_plan(plan, open_dataset(plan.dataset, folder / "sets"), folder / "models" / "t", workers=0)


@pytest.fixture(scope="session")
def model_of(trained: Trained) -> Callable[[str], Model]:
    """Return a function from a model's name to the model."""
    return lambda name: Model.load(find_model(f"t/{name}", trained.out_dir.parent))


@pytest.fixture(scope="session")
def measured(synthetic: SimpleNamespace) -> Callable[..., MeasuredSpectrum]:
    """Return a function that makes a measured spectrum of a synthetic molecule: wider, on any scale."""

    def make(
        index: int, scale: Intensity = Intensity.STRENGTH, factor: float = 1.0, **fields: str
    ) -> MeasuredSpectrum:
        spectrum = synthetic.record(index).spectrum
        energies = np.arange(spectrum.energies_eV[0] - 15.0, spectrum.energies_eV[-1] + 1e-9, 0.1)
        values = np.interp(energies, spectrum.energies_eV, spectrum.total, left=0.0)
        return MeasuredSpectrum(
            Path(f"m{index:03d}.csv"), "CSV", energies, factor * values, scale, "mu", "eV", **fields
        )

    return make
