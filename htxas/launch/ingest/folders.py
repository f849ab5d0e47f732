"""Run folders below what the user names, and reading them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

from htxas.domain.site import Site
from htxas.domain.structure import Structure
from htxas.engines.adoption import Adopted, Adopter, NotAdopted, Why
from htxas.engines.registry import adopters
from htxas.errors import StructureError, UserError
from htxas.structures.symmetry import unique_sites

__all__ = ["Found", "RunFolder", "find", "read_all"]

_AT_ONCE = 40  # folders that one process reads before it answers
_AHEAD = 4  # such parts per process under way: what is read waits for the database in memory


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder that an engine knows: where, below what the user named, and whose it is."""

    path: Path
    root: Path
    engine: str


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a folder gave.

    Attributes
    ----------
    folder
        The folder.
    adopted
        Its calculation, for the atom that stands for its site; or None.
    sites
        All sites of the structure.
    why, message
        Why there is none.
    """

    folder: RunFolder
    adopted: Adopted | None = None
    sites: tuple[Site, ...] = ()
    why: Why | None = None
    message: str = ""


def find(
    paths: Sequence[Path],
    engines: Sequence[str] | None = None,
    on_unreadable: Callable[[str, str], None] | None = None,
) -> Iterator[RunFolder]:
    """Yield the run folders below ``paths`` in order of their names, each once. Links are not followed.

    Parameters
    ----------
    paths
        Folders.
    engines
        Look only for runs of these.
    on_unreadable
        Called with the path of a folder that cannot be looked into, and why.

    Raises
    ------
    UserError
        A path is no folder.
    """
    markers = {m: name for name, a in _adopters(tuple(engines or ())).items() for m in a.markers}
    roots = [path.expanduser().resolve() for path in paths]
    for path, root in zip(paths, roots, strict=True):
        if not root.is_dir():
            raise UserError("no such folder", where=str(path), hint="name folders of runs, or one above them")
    # Names are paths below what all of them have in common: of two trees no two are the same.
    common = Path(os.path.commonpath(roots)) if roots else Path()
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        if on_unreadable is not None:
            on_unreadable(str(error.filename), str(error.strerror))

    for root in roots:
        for where, folders, files in os.walk(root, onerror=unreadable):
            folders.sort()
            owner = next((markers[m] for m in markers if m in files), None)
            if owner is not None and where not in seen:
                seen.add(where)
                yield RunFolder(Path(where), common, owner)


@lru_cache(maxsize=4)
def _adopters(engines: tuple[str, ...]) -> Mapping[str, Adopter]:
    return {name: a for name, a in adopters().items() if not engines or name in engines}


def read_all(folders: Iterable[RunFolder], tolerance_A: float, jobs: int) -> Iterator[list[Found]]:
    """Yield what folders hold, part by part in their order, read by ``jobs`` processes."""
    source = iter(folders)
    parts = iter(lambda: list(islice(source, _AT_ONCE)), [])
    if jobs == 1:
        yield from (read_part(part, tolerance_A) for part in parts)
        return
    with ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(jobs))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        waiting = [pool.submit(read_part, part, tolerance_A) for part in islice(parts, _AHEAD * jobs)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(read_part, part, tolerance_A) for part in islice(parts, 1)]


def read_part(folders: Sequence[RunFolder], tolerance_A: float) -> list[Found]:
    """Return what folders hold."""
    return [_read(folder, tolerance_A) for folder in folders]


def _read(folder: RunFolder, tolerance_A: float) -> Found:
    try:
        adopted = _adopters(())[folder.engine].adopt(folder.path, folder.root)
        sites = _sites(adopted.structure, adopted.structure.symbols[_atom(adopted)], tolerance_A)
    except NotAdopted as error:
        return Found(folder, why=error.why, message=error.message)
    except StructureError as error:
        return Found(folder, why=Why.UNSUPPORTED, message=str(error))
    except (
        OSError,
        ValueError,
        LookupError,
        ArithmeticError,
    ) as error:  # a file damaged in a way nobody thought of
        return Found(folder, why=Why.DAMAGED, message=f"{type(error).__name__}: {error}")
    site = next(s for s in sites if _atom(adopted) in s.equivalent)
    calculation = replace(adopted.calculation, atom=site.atom)
    provenance = adopted.result.provenance
    if site.atom != _atom(adopted):  # equivalent: the same spectrum, orientations averaged
        provenance = replace(provenance, extra={**provenance.extra, "computed_atom": _atom(adopted)})
    result = replace(adopted.result, provenance=provenance)
    return Found(folder, replace(adopted, calculation=calculation, result=result), sites)


def _atom(adopted: Adopted) -> int:
    assert adopted.calculation.atom is not None
    return adopted.calculation.atom


@lru_cache(maxsize=64)
def _sites(structure: Structure, element: str, tolerance_A: float) -> tuple[Site, ...]:
    return unique_sites(structure, element, tolerance_A)
