"""One door to all sources: campaigns of the database, or files, read once and frozen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from htxas.datafile import DatasetFile, published_paths
from htxas.errors import DatasetError, NotFound
from htxas.learn.data.config import Qm9Files, Wanted
from htxas.learn.data.dataset import CARD, Dataset, freeze, load
from htxas.learn.data.qm9 import QM9_PREFIX, Qm9Table
from htxas.learn.data.recipe import Recipe
from htxas.learn.data.source import FileSource, SeveralSources, Source, StoreSource
from htxas.learn.data.source_published import PublishedSource

__all__ = ["find_dataset", "freeze_source", "is_source", "named_datasets", "name_dataset", "open_dataset"]


def is_source(path: Path) -> bool:
    """Return whether a path is something to be frozen: a file, or a folder of published ones."""
    return path.is_file() or (path.is_dir() and bool(published_paths(path)))


def open_dataset(wanted: Wanted, datasets_dir: Path) -> Dataset:
    """Freeze the dataset that a file asks for under ``datasets_dir``, or open the one that it names.

    Raises
    ------
    DatasetError
        As :func:`freeze_source`; or the dataset named lacks a target.
    NotFound
        There is no dataset of that name.
    DatabaseUnavailable
        If a source is a campaign and no server answers.
    """
    if wanted.recipe is not None:
        return freeze_source(
            wanted.recipe, datasets_dir, campaigns=wanted.campaigns, files=wanted.files, qm9=wanted.qm9
        )
    assert wanted.frozen is not None
    dataset = find_dataset(wanted.frozen, datasets_dir)
    curves = {c.name for c in dataset.recipe.curves}
    for target in wanted.targets:
        if target not in curves:
            dataset.target(target)
    return dataset


def freeze_source(
    recipe: Recipe,
    datasets_dir: Path,
    *,
    campaigns: Sequence[str] = (),
    files: Sequence[Path] = (),
    qm9: Qm9Files | None = None,
) -> Dataset:
    """Freeze a dataset under ``datasets_dir``; campaigns are read from the open database.

    Parameters
    ----------
    recipe
        What is taken.
    campaigns, files
        The sources: campaigns by name, and dataset files or (a folder of) files of the published layout.
    qm9
        Properties to join, and SMILES of molecules that the source knows by number.

    Raises
    ------
    DatasetError
        See :func:`htxas.learn.data.dataset.freeze`.
    DatabaseUnavailable
        If a source is a campaign and no server answers.
    """
    table = None
    columns = [t.removeprefix(QM9_PREFIX) for t in recipe.targets if t.startswith(QM9_PREFIX)]
    if qm9 is not None and qm9.properties is not None and columns:
        table = Qm9Table.read(qm9.properties, qm9.molecules, columns)
    sources: list[Source] = [_file_source(file, recipe, qm9) for file in files]
    with ExitStack() as stack:
        if campaigns:
            _refuse_molecules(qm9)
            from htxas.store.store import Store  # a file needs no database driver

            store = stack.enter_context(Store.open())
            sources += [StoreSource(store, campaign) for campaign in campaigns]
        source = sources[0] if len(sources) == 1 else SeveralSources.of(sources)
        return freeze(source, recipe, datasets_dir, qm9=table)


def _file_source(path: Path, recipe: Recipe, qm9: Qm9Files | None) -> Source:
    if path.is_dir() or published_paths(path):
        return PublishedSource.of(path, recipe, None if qm9 is None else qm9.molecules)
    DatasetFile(path).close()  # says so if it is something else
    _refuse_molecules(qm9)
    return FileSource(path)


def _refuse_molecules(qm9: Qm9Files | None) -> None:
    if qm9 is not None and qm9.properties is None:
        raise DatasetError(
            "qm9.molecules alone is for files of the published layout: here every molecule tells its own SMILES",
            where=str(qm9.molecules),
            hint="leave it out, or give qm9.properties",
        )


def name_dataset(dataset: Dataset, name: str, datasets_dir: Path) -> None:
    """Give a frozen dataset a name: a link beside its folder.

    Raises
    ------
    DatasetError
        If another dataset has the name, or it is the name of a folder.
    """
    link = datasets_dir / name
    if link.is_symlink():
        if link.resolve() == dataset.path.resolve():
            return
        raise DatasetError(
            f"{name!r} is another dataset, {link.resolve().name}", where=str(link), hint="choose another name"
        )
    if link.exists():
        raise DatasetError("this name is taken", where=str(link), hint="choose another name")
    link.symlink_to(dataset.path.name, target_is_directory=True)


def named_datasets(datasets_dir: Path) -> dict[str, Path]:
    """Return the folders of all frozen datasets by name; of those without one by their key."""
    entries = sorted(p for p in datasets_dir.glob("*") if (p / CARD).is_file())
    links = {p.name: p.resolve() for p in entries if p.is_symlink()}
    named = set(links.values())
    return links | {p.name: p for p in entries if not p.is_symlink() and p.resolve() not in named}


def find_dataset(text: str, datasets_dir: Path) -> Dataset:
    """Open a dataset given by its folder, its name, or the start of its key.

    Raises
    ------
    NotFound
        With the names there are.
    DatasetError
        If it cannot be opened.
    """
    for path in (Path(text).expanduser(), datasets_dir / text):
        if (path / CARD).is_file():
            return load(path.resolve())
    found = sorted(p for p in datasets_dir.glob(f"{text}*") if (p / CARD).is_file() and not p.is_symlink())
    if text and len(found) == 1:
        return load(found[0])
    names = " ".join(named_datasets(datasets_dir))
    raise NotFound(
        f"no dataset {text!r}",
        where=str(datasets_dir),
        hint=f"there are: {names}" if names else "htxas dataset freeze NAME --from CAMPAIGN --recipe FILE",
    )
