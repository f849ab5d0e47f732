"""The training spectra that are most like a new one, what is known of them, and where they were computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from htxas.domain.identity import KEY_LENGTH
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.recipe import Rows
from htxas.learn.runs.sides import sides
from htxas.learn.serve.model import Model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from htxas.store.store import Store

__all__ = ["Neighbour", "SiteOrigin", "nearest", "with_origins"]

COUNT = 3


@dataclass(frozen=True, slots=True)
class SiteOrigin:
    """Where a site of a training molecule was computed.

    Attributes
    ----------
    key
        Calculation key: ``htxas site show KEY``.
    campaigns
        Those that want it.
    host, directory
        Where its last attempt ran; None where that is not known.
    """

    key: str
    campaigns: tuple[str, ...]
    host: str | None
    directory: str | None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training row.

    Attributes
    ----------
    name, key
        Of the row, and of its structure or site.
    molecule
        Canonical SMILES, where the dataset has them; the formula of a crystal; else None.
    distance
        In the space of the training spectra's principal components, each of variance 1.
    true
        Known values by target, where the model predicts numbers.
    sites
        Its sites as the database knows them; empty if it does not.
    """

    name: str
    key: str
    molecule: str | None
    distance: float
    true: dict[str, float]
    sites: tuple[SiteOrigin, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return asdict(self)


def nearest(
    model: Model, dataset: Dataset, z: npt.NDArray[np.float64], count: int = COUNT
) -> list[Neighbour]:
    """Return the nearest training rows of standardised inputs (d,), nearest first; at most five."""
    distances, places = model.net.domain.nearest(z[None])
    rows = sides(dataset, model.net.spec).train
    columns = {} if model.is_curve else {t: dataset.target(t) for t in model.targets}
    names, keys, groups = dataset.ids, dataset.documents, dataset.groups
    found = []
    for distance, place in zip(distances[0][:count], places[0][:count], strict=True):
        row = int(rows[place])
        found.append(
            Neighbour(
                names[row],
                keys[row],
                _molecule(groups[row]),
                float(distance),
                {t: float(c[row]) for t, c in columns.items()},
            )
        )
    return found


def with_origins(neighbours: list[Neighbour], model: Model, store: Store) -> list[Neighbour]:
    """Return neighbours with their sites, computed as the model's training spectra were, from the database."""
    if model.recipe.rows is Rows.SITE:
        sites = {n.key: [n.key] for n in neighbours}
    else:
        sites = {n.key: [] for n in neighbours}
        for molecule in store.molecules(structure_key=list(sites)):
            known = sites[molecule.structure_key]
            known += [s.key for s in molecule.sites if s.key not in known]
    records = store.calculations([key for keys in sites.values() for key in keys])
    wanted = model.method.parameters_key
    return [
        Neighbour(
            n.name,
            n.key,
            n.molecule,
            n.distance,
            n.true,
            tuple(
                SiteOrigin(key, r.campaigns, r.host, r.directory)
                for key in sites[n.key]
                if (r := records.get(key)) is not None and r.parameters_key == wanted
            ),
        )
        for n in neighbours
    ]


def _molecule(group: str) -> str | None:
    """Return what a group is called, without the key of its structure."""
    shown = [w for w in group.split() if len(w) != KEY_LENGTH or set(w) - set("0123456789abcdef")]
    return " ".join(shown) or None
