"""What a run computes: everything that decides its numbers, as one frozen record; its hash names its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from htxas import __version__
from htxas.domain.identity import content_key
from htxas.errors import DatasetError
from htxas.learn.data.recipe import ModelKind
from htxas.learn.nets.network import Network
from htxas.learn.nets.noise import Noise

__all__ = ["SCHEMA", "Fold", "RunSpec", "Subset", "code_versions", "folder_name"]

SCHEMA = 4
_NAMED_TARGETS = 3


@dataclass(frozen=True, slots=True)
class Fold:
    """One of ``of`` parts of the molecules, ranked by a hash: this one is the test side.

    The others are divided into training and validation as the recipe's fractions say.

    Attributes
    ----------
    number
        From 0.
    of
        At least 2.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises
        ------
        DatasetError
            If there is no such fold.
        """
        if self.of < 2 or not 0 <= self.number < self.of:
            raise DatasetError(
                f"there is no fold {self.number} of {self.of}", hint="folds are numbered from 0"
            )


@dataclass(frozen=True, slots=True)
class Subset:
    """Part of a side.

    Attributes
    ----------
    fraction
        Of the molecules, ranked by a hash: a smaller fraction is contained in a larger one.
    atoms, heavy_atoms
        Smallest and largest number of atoms, both included; None: any.
    every_side
        Take rows of every side of the split instead of one side; for test rows only, and refused where one of their
        molecules is trained on: large molecules kept out of training by its own ``atoms`` are all tested.
    """

    fraction: float = 1.0
    atoms: tuple[int, int] | None = None
    heavy_atoms: tuple[int, int] | None = None
    every_side: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises
        ------
        DatasetError
            If nothing can be in it.
        """
        if not 0 < self.fraction <= 1:
            raise DatasetError(f"a subset's fraction is {self.fraction}; above 0 and at most 1 is needed")
        for name, limits in (("atoms", self.atoms), ("heavy_atoms", self.heavy_atoms)):
            if limits is not None and limits[0] > limits[1]:
                raise DatasetError(f"a subset's {name} go from {limits[0]} to {limits[1]}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Subset:
        """Rebuild from plain values."""
        limits = {n: tuple(data[n]) for n in ("atoms", "heavy_atoms") if data.get(n) is not None}
        return cls(**{**data, **limits})


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run computes.

    Attributes
    ----------
    dataset_key
        Hash of the frozen dataset.
    targets
        Scalar target names, or exactly one curve name.
    kind
        Model-A or Model-B.
    network
        Architecture and schedule.
    seed
        User's seed.
    split
        Name of a frozen split of the dataset; ``row`` divides rows whatever their molecule: it shows what that hides.
    fold
        Takes the place of the split's sides; by molecule, whatever ``split`` is (which stays ``molecule``).
    train
        Part of the training rows. Its size limits hold for the validation rows too, its fraction does not.
    test
        Part of the test rows.
    noise
        Of the training spectra, drawn anew in every epoch; validation rows carry it too, drawn once.
    test_noise
        Test spectra are also scored with each of these, drawn once from fixed seeds.
    columns
        First and last point of the window that are seen, both included; None: all.
    """

    dataset_key: str
    targets: tuple[str, ...]
    kind: ModelKind
    network: Network
    seed: int
    split: str = "molecule"
    fold: Fold | None = None
    train: Subset | None = None
    test: Subset | None = None
    noise: Noise | None = None
    test_noise: tuple[Noise, ...] = ()
    columns: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be run on any dataset.

        Raises
        ------
        DatasetError
            No target or one twice, a fold of another split, an empty column range, a training subset of every side,
            noise-conditioning without a range of doses.
        """
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise DatasetError(f"a run needs distinct targets, not {list(self.targets)}")
        if self.fold is not None and self.split != "molecule":
            raise DatasetError(f"folds are made by molecule: split {self.split!r} cannot go with one")
        if self.columns is not None and not 0 <= self.columns[0] <= self.columns[1]:
            raise DatasetError(f"columns go from {self.columns[0]} to {self.columns[1]}")
        if self.train is not None and self.train.every_side:
            raise DatasetError("every_side is for test rows only")
        conditioned = self.network.noise_conditioned
        if conditioned and (self.noise is None or self.noise.counts_to is None):
            raise DatasetError(
                "a noise-conditioned net is trained over a range of doses",
                hint="give noise.counts and counts_to",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return {
            "dataset_key": self.dataset_key,
            "targets": list(self.targets),
            "kind": self.kind.value,
            "network": self.network.to_dict(),
            "seed": self.seed,
            "split": self.split,
            "fold": _plain(self.fold),
            "train": _plain(self.train),
            "test": _plain(self.test),
            "noise": _plain(self.noise),
            "test_noise": [noise.to_dict() for noise in self.test_noise],
            "columns": None if self.columns is None else list(self.columns),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunSpec:
        """Rebuild from :meth:`to_dict`."""
        return cls(
            dataset_key=data["dataset_key"],
            targets=tuple(data["targets"]),
            kind=ModelKind(data["kind"]),
            network=Network.from_dict(data["network"]),
            seed=data["seed"],
            split=data["split"],
            fold=None if data["fold"] is None else Fold(**data["fold"]),
            train=None if data["train"] is None else Subset.from_dict(data["train"]),
            test=None if data["test"] is None else Subset.from_dict(data["test"]),
            noise=None if data["noise"] is None else Noise.from_dict(data["noise"]),
            test_noise=tuple(Noise.from_dict(n) for n in data["test_noise"]),
            columns=None if data["columns"] is None else tuple(data["columns"]),
        )

    @property
    def key(self) -> str:
        """Content hash of everything that decides the result, the code's versions included."""
        return content_key({"schema": SCHEMA, **self.to_dict(), "code": code_versions()})

    @property
    def name(self) -> str:
        """Name of the model: ``gap-A``, ``gap+homo-A``, ``gap+11-A`` of twelve targets."""
        shown = list(self.targets)
        if len(shown) > _NAMED_TARGETS:
            shown = [shown[0], str(len(shown) - 1)]
        return f"{'+'.join(shown)}-{self.kind.value}"

    @property
    def folder(self) -> str:
        """Name of the folder: results of other datasets or settings are never overwritten."""
        return folder_name(self.name, self.key)

    @property
    def generator_seed(self) -> int:
        """Seed of the run's own generator, whichever worker runs it, in whatever order."""
        decides = {"seed": self.seed, "targets": list(self.targets), "kind": self.kind.value}
        return int(content_key(decides)[:15], 16)


def folder_name(name: str, key: str) -> str:
    """Return the folder of the run called ``name`` whose hash is ``key``."""
    return f"{name}-{key[:8]}"


def code_versions() -> dict[str, str]:
    """Return the versions of what computes the numbers."""
    import torch

    return {"htxas": __version__, "torch": str(torch.__version__), "numpy": np.__version__}


def _plain(record: Fold | Subset | Noise | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(record).items()}
