"""``htxas query``: find calculations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from htxas.store.records import CalculationRecord
    from htxas.store.store import Store

__all__ = ["query"]

_STATES = ("ready", "running", "done", "failed", "quarantined")
_SORTS = ("key", "energy", "-energy", "updated", "-updated", "wall_s", "-wall_s")
_ELEMENT_COUNT = re.compile(r"([A-Z][a-z]?)([1-9]\d*)?")


class _EnergyRange(click.ParamType[tuple[float | None, float | None]]):
    name = "LOW:HIGH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float | None, float | None]:
        if isinstance(value, tuple):
            return value
        low, colon, high = str(value).partition(":")
        try:
            bounds = (float(low) if low else None, float(high) if high else None)
        except ValueError:
            self.fail(f"{value!r} is not LOW:HIGH in eV, such as 285:287", param, ctx)
        if not colon or bounds == (None, None) or (None not in bounds and bounds[0] > bounds[1]):  # type: ignore[operator]
            self.fail(f"{value!r} is not LOW:HIGH in eV, such as 285:287 or 285:", param, ctx)
        return bounds


class _AtLeast(click.ParamType[tuple[str, int]]):
    name = "ELEMENT[COUNT]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        from htxas.domain.elements import SYMBOLS

        if isinstance(value, tuple):
            return value
        match = _ELEMENT_COUNT.fullmatch(str(value))
        if match is None or match.group(1) not in SYMBOLS:
            self.fail(f"{value!r} is not an element with a count, such as N or O2", param, ctx)
        return match.group(1), int(match.group(2) or 1)


@click.command()
@click.option("--campaign", "-c", metavar="NAME", help="Calculations of this campaign.")
@click.option("--state", type=click.Choice(_STATES))
@click.option("--kind", type=click.Choice(("site", "ground")))
@click.option("--formula", metavar="C2H6O", help="Hill formula of the molecule.")
@click.option("--smiles", help="SMILES of the molecule, in any form.")
@click.option("--contains", type=_AtLeast(), multiple=True, help="At least so many atoms; may be repeated.")
@click.option("--element", metavar="C", help="Absorber.")
@click.option("--edge", metavar="K")
@click.option("--energy", type=_EnergyRange(), help="First state or threshold in eV.")
@click.option("--engine", metavar="NAME")
@click.option(
    "--corrected/--uncorrected", default=None, help="Found with corrections after a failure, or without."
)
@click.option("--sort", type=click.Choice(_SORTS), help="A leading - sorts downwards.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="0 for all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values with a header.")
def query(
    campaign: str | None,
    state: str | None,
    kind: str | None,
    formula: str | None,
    smiles: str | None,
    contains: tuple[tuple[str, int], ...],
    element: str | None,
    edge: str | None,
    energy: tuple[float | None, float | None] | None,
    engine: str | None,
    corrected: bool | None,
    sort: str | None,
    limit: int,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Find calculations by composition, SMILES, state, energy. Conditions are combined with "and".

    \b
    htxas query --campaign quickstart --state failed
    htxas query --contains N --contains O2 --energy 285:287 --sort energy
    htxas query --smiles OCC --kind site --json
    htxas query -c quickstart --state done --corrected
    htxas query -c quickstart --state done --limit 0 --csv > sites.csv
    """
    from typing import cast

    from htxas.domain.calculation import Kind, State
    from htxas.report.tables import query_table
    from htxas.report.terminal import console, to_json
    from htxas.store.reading import Sort
    from htxas.store.store import Store

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    low, high = energy or (None, None)
    canonical = _canonical(smiles)
    with Store.open() as store:
        if campaign is not None:
            store.campaign(campaign)  # a misspelt name is an error, not an empty answer
        records = store.find(
            campaign=campaign,
            state=State(state) if state else None,
            kind=Kind(kind) if kind else None,
            formula=formula,
            smiles=canonical,
            contains=dict(contains),
            element=element,
            edge=edge,
            engine=engine,
            corrected=corrected,
            min_energy_eV=low,
            max_energy_eV=high,
            limit=limit or None,
            sort=cast("Sort | None", sort),
        )
        rows = _rows(store, records)
        if as_json:
            click.echo(to_json(list(rows)))
        elif as_csv:
            _write_csv(rows)
        else:
            console().print(query_table(rows, limit=limit))


def _rows(store: Store, records: Iterator[CalculationRecord]) -> Iterator[dict[str, Any]]:
    from htxas.report.tables import query_row

    structure = None
    for record in records:
        # calculations of a molecule tend to follow each other: one look-up serves them all
        if structure is None or structure.structure.key != record.structure_key:
            structure = store.structure(record.structure_key)
        yield query_row(record, structure)


def _write_csv(rows: Iterator[dict[str, Any]]) -> None:
    import csv
    import sys

    from htxas.report.tables import QUERY_COLUMNS

    writer = csv.DictWriter(sys.stdout, QUERY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: " ".join(v) if isinstance(v, list) else v for k, v in row.items()})


def _canonical(smiles: str | None) -> str | None:
    if smiles is None:
        return None
    from htxas.structures.smiles import parse_smiles

    return parse_smiles(smiles, where="--smiles").canonical
