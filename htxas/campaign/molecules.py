"""The molecules of a campaign: files read, selection applied, geometries made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING

from htxas.campaign.file import CampaignFile, Geometry, Source
from htxas.errors import CampaignFileError, StructureError
from htxas.settings import home
from htxas.structures.read import OnError, read_molecules
from htxas.structures.source import SourceMolecule

if TYPE_CHECKING:
    from htxas.structures.geometry import GeometryMaker

__all__ = ["campaign_molecules"]


def campaign_molecules(
    campaign: CampaignFile, on_skip: Callable[[str, str, StructureError], None]
) -> Iterator[tuple[Source, SourceMolecule]]:
    """Yield the wanted molecules of all sources, in order.

    Parameters
    ----------
    campaign
        The campaign.
    on_skip
        Called with name, kind and error of each molecule that a source with ``skip`` has to leave out.

    Raises
    ------
    CampaignFileError
        If a name in ``select`` is not in the file.
    StructureError
        From the readers, naming file and record.
    """
    for source in campaign.sources:
        for molecule in _selected(campaign, source, on_skip if source.skip else None):
            yield source, molecule


def _selected(campaign: CampaignFile, source: Source, on_error: OnError | None) -> Iterator[SourceMolecule]:
    asked = (source.names or frozenset()) | source.exclude
    missing = set(asked)
    near: set[str] = set()

    def wanted(name: str) -> bool:
        missing.discard(name)
        if missing:
            near.update(get_close_matches(name, missing, n=1, cutoff=0.7) and [name])
        return name not in source.exclude and (source.names is None or name in source.names)

    molecules = read_molecules(
        source.path,
        geometry=None if source.geometry is None else geometry_maker(source.geometry),
        relax=source.geometry is not None and source.geometry.relax,
        geometry_method=source.given_method,
        wanted=wanted,
        on_error=on_error,
    )
    if source.limit is not None:
        yield from islice(molecules, source.limit)
        return  # names beyond the limit were never looked for
    yield from molecules
    if missing:
        name = min(missing)
        close = get_close_matches(name, near, n=1)
        raise CampaignFileError(
            f"no molecule of {source.written} is called {name!r}",
            where=f"{campaign.path}: structures: select",
            hint=f"did you mean {close[0]!r}?" if close else None,
        )


def geometry_maker(geometry: Geometry) -> GeometryMaker:
    """Return what makes geometries, with its folder of finished ones in the home of htxas."""
    from htxas.structures.geometry import GeometryMaker
    from htxas.structures.relax import XtbRelaxer

    return GeometryMaker(
        home() / "geometries",
        relaxer=XtbRelaxer(fmax_eV_per_A=geometry.fmax_eV_per_A),
        shipped=() if geometry.shipped is None else (geometry.shipped,),
    )
