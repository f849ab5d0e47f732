"""What a split by site hides: R2 over all sites of crystals, folds divided by site, material, formula and elements.

    python tests/benchmarks/site_split.py DATASET [--target NAME ...]

Five folds; each is predicted by what was fitted to three, the penalty of ridge and the number of neighbours chosen on
the fourth. All rows of the table are scored on the same sites.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from htxas.learn.data.chemistry import parse_formula
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.door import find_dataset
from htxas.learn.data.features import Standardiser
from htxas.settings import datasets_folder

_FOLDS = 5


def methods() -> dict[str, list[Any]]:
    """Return what is compared: a name and the settings the validation side chooses among."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor

    return {
        "ridge": [Ridge(alpha=a) for a in 10.0 ** np.arange(-3, 4)],
        "kNN": [KNeighborsRegressor(k, weights="distance") for k in (1, 3, 5, 10, 20)],
        "ExtraTrees": [ExtraTreesRegressor(200, max_features=0.3, n_jobs=1, random_state=0)],
    }


def score(dataset: Dataset, target: str, labels: list[str], candidates: Sequence[Any]) -> float:
    """Return R2 over all sites, each predicted by a fit to folds that share no label with it."""
    from sklearn.metrics import r2_score
    from sklearn.model_selection import GroupKFold

    y, codes = dataset.target(target), np.unique(labels, return_inverse=True)[1]
    predicted = np.empty(len(y))
    folds = [test for _, test in GroupKFold(_FOLDS, shuffle=True, random_state=0).split(y, groups=codes)]
    for i, test in enumerate(folds):
        chosen_on = folds[(i + 1) % _FOLDS]
        train = np.setdiff1d(np.arange(len(y)), np.concatenate([test, chosen_on]))
        x = Standardiser.fit(dataset.spectra[train], floor_columns=dataset.spectra.shape[1]).apply(
            dataset.spectra
        )
        fitted = [m.fit(x[train], y[train]) for m in candidates]
        best = max(fitted, key=lambda m: float(r2_score(y[chosen_on], m.predict(x[chosen_on]))))
        predicted[test] = best.predict(x[test])
    return float(r2_score(y, predicted))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--target", action="append")
    options = parser.parse_args()
    dataset = find_dataset(options.dataset, datasets_folder())
    formulas = [group.split()[0] for group in dataset.groups]
    labels = {
        "site (leaks)": dataset.ids,
        "material": dataset.groups,
        "formula": formulas,
        "elements": ["-".join(parse_formula(f)) for f in formulas],
    }
    models = methods()
    print("| target | split by | groups | " + " | ".join(models) + " |")
    print("|---" * (3 + len(models)) + "|")
    for target in options.target or [t["name"] for t in dataset.card["targets"]]:
        for words, of in labels.items():
            found = [f"{score(dataset, target, of, candidates):.3f}" for candidates in models.values()]
            print(f"| {target} | {words} | {len(set(of)):,} | " + " | ".join(found) + " |", flush=True)


if __name__ == "__main__":
    main()
