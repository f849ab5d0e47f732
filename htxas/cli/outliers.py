"""``htxas site outliers``: sites whose result is not what their surroundings say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from htxas.cli._progress import progress

if TYPE_CHECKING:
    from htxas.datafile import MoleculeEntry, SiteEntry
    from htxas.learn.choose.outliers import Judgement
    from htxas.learn.choose.sites import SiteRow, SiteTable
    from htxas.store.store import Store

__all__ = ["outliers"]

_SHOWN = 3


@click.command()
@click.argument("campaign", required=False)
@click.option(
    "--file",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE.h5",
    help="An exported dataset file instead. May be repeated.",
)
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="Show at most so many.")
@click.option("--seed", default=0, show_default=True, help="Of the model.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with every view of each site.")
def outliers(campaign: str | None, files: tuple[Path, ...], top: int, seed: int, as_json: bool) -> None:
    """List finished sites whose energies or spectrum are far from what their surroundings say.

    Each site is compared with a model of the other molecules' sites (from their surroundings in three dimensions)
    and with its ten nearest neighbours among them; flagged is what lies outside both. That is no verdict: a rare
    environment is flagged as a wrong result is. Look at each before you believe or reject it.

    \b
    htxas site outliers qm9
    htxas site outliers qm9 --top 5 --json | jq '.sites[].site'
    htxas site outliers --file reference.h5 --file extension.h5
    """
    from htxas.errors import UserError
    from htxas.learn.choose.outliers import judge
    from htxas.learn.choose.sites import file_sites, tabulate

    if (campaign is None) == (not files):
        raise UserError("give one of CAMPAIGN and --file FILE.h5", where="htxas site outliers")
    if files:
        with progress("reading sites", None, quiet=as_json) as advance:
            table = tabulate(_counted(file_sites(files), advance))
        found = judge(table, seed=seed)
        histories = _file_histories(files, table, found.flagged[:top])
    else:
        from htxas.learn.choose.sites import store_sites
        from htxas.store.store import Store

        assert campaign is not None
        with Store.open() as store:
            with progress("reading sites", None, quiet=as_json) as advance:
                table = tabulate(_counted(store_sites(store, campaign), advance))
            found = judge(table, seed=seed)
            histories = _store_histories(store, campaign, table, found.flagged[:top])
    if as_json:
        from htxas.report.terminal import to_json

        click.echo(to_json(_document(table, found, histories)))
        return
    _print(campaign or ", ".join(map(str, files)), table, found, histories)


def _counted(sites: Iterator[SiteRow], advance: Callable[[int], None]) -> Iterator[SiteRow]:
    for site in sites:
        advance(1)
        yield site


def _site(table: SiteTable, row: int) -> str:
    return f"{table.molecules[row]}/{table.file_atoms[row]}"


def _store_histories(
    store: Store, campaign: str, table: SiteTable, rows: Sequence[int]
) -> dict[int, dict[str, Any]]:
    from htxas.report.results import another_state, corrections

    found = {}
    for row in rows:
        record = store.calculation(table.keys[row])
        smiles = store.structure(record.structure_key).smiles
        found[row] = {
            "smiles": smiles,
            "attempts": record.attempts,
            "history": [
                {k: e.get(k) for k in ("attempt", "state", "cause", "corrections")} for e in record.history
            ],
            "corrections": list(corrections(record)),
            "another_state": list(another_state(record)),
            "directory": record.directory,
            "show": f"htxas site show {_site(table, row)} --campaign {campaign}",
        }
    return found


def _file_histories(
    files: Sequence[Path], table: SiteTable, rows: Sequence[int]
) -> dict[int, dict[str, Any]]:
    from htxas.datafile import DatasetFile

    found: dict[int, dict[str, Any]] = {}
    for file in files:
        with DatasetFile(file) as data:
            there = set(data.names())
            for row in rows:
                if row in found or table.molecules[row] not in there:
                    continue
                entry = data.molecule(table.molecules[row])
                site = next((s for s in entry.sites if s.key == table.keys[row]), None)
                if site is not None:
                    found[row] = _as_filed(entry, site)
    return {row: found[row] for row in rows}


def _as_filed(entry: MoleculeEntry, site: SiteEntry) -> dict[str, Any]:
    return {
        "smiles": entry.smiles,
        "attempts": None,  # a file does not tell
        "history": [],
        "corrections": None if site.corrections is None else list(site.corrections),
        "another_state": None if site.another_state is None else list(site.another_state),
        "directory": None,
        "show": None,
    }


def _document(
    table: SiteTable, found: Judgement, histories: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    from htxas.learn.choose.outliers import FALSE_FLAGS

    excess = found.excess
    sites = []
    for row, history in histories.items():
        views = {
            v.name: {
                "flagged": bool(v.score[row] > v.threshold),
                "z_model": float(v.by_model[row]),
                "z_neighbours": float(v.by_neighbours[row]),
                "found": float(v.found[row]),
                "model": float(v.model_value[row]),
                "neighbours": float(v.neighbour_value[row]),
                "usually_off": float(v.usual[row]),
            }
            for v in found.views
        }
        sites.append(
            {
                "site": _site(table, row),
                "key": table.keys[row],
                "score": float(excess[row]),
                "nearest": {
                    "site": _site(table, int(found.nearest[row])),
                    "key": table.keys[found.nearest[row]],
                },
                "views": views,
                **history,
            }
        )
    return {
        "judged": len(table),
        "flagged": len(found.flagged),
        "expected_by_chance": FALSE_FLAGS,
        "thresholds": {v.name: v.threshold for v in found.views},
        "left_out": table.left_out,
        "sites": sites,
    }


def _print(name: str, table: SiteTable, found: Judgement, histories: Mapping[int, Mapping[str, Any]]) -> None:
    from rich.table import Table

    from htxas.cli._text import names, plural
    from htxas.learn.choose.outliers import FALSE_FLAGS
    from htxas.report.terminal import console

    limits = ", ".join(f"{v.name} {v.threshold:.1f}" for v in found.views)
    if histories:
        shown = Table(title=f"{name}: {plural(len(found.flagged), 'site')} to look at")
        for heading in ("site", "SMILES", "score", "what", "found", "model", "neighbours", "usually off"):
            shown.add_column(heading, justify="left" if heading in ("site", "SMILES", "what") else "right")
        for row, history in histories.items():
            view = max(found.views, key=lambda v: v.score[row] / v.threshold)
            numbers = (view.found[row], view.model_value[row], view.neighbour_value[row], view.usual[row])
            shown.add_row(
                _site(table, row),
                history["smiles"] or "-",
                f"{view.score[row] / view.threshold:.2f}",
                view.name,
                *("-" if x != x else f"{x:.2f}" for x in numbers),
            )
        console().print(shown)
        for row, history in histories.items():
            click.echo(f"{_site(table, row)}: {_told(history)}")
            if history["show"]:
                click.echo(f"  {history['directory'] or 'no folder'}; look: {history['show']}")
    else:
        highest = int(found.excess.argmax())
        click.echo(
            f"{name}: nothing to look at; the nearest to it is {_site(table, highest)} with {found.excess[highest]:.2f}"
        )
    if len(found.flagged) > len(histories):
        click.echo(f"{len(found.flagged) - len(histories):,} more: --top")
    click.echo(
        f"{plural(len(table), 'site')} judged; score: z over its threshold ({limits}), set so that of the bulk about "
        f"{FALSE_FLAGS:.0f} pass it; energies in eV, shapes as distances in units of the spread of all spectra"
    )
    for reason, sites in table.left_out.items():
        click.echo(f"not judged ({len(sites):,}): {reason}: {names(sites[:_SHOWN], len(sites))}")


def _told(history: Mapping[str, Any]) -> str:
    """Return the history of a site in words."""
    parts = []
    if history["attempts"] is not None:
        ends = [f"{e['attempt']} {e['cause'] or e['state']}" for e in history["history"]]
        parts.append(f"attempt {history['attempts']}" + (f" ({', '.join(ends)})" if len(ends) > 1 else ""))
    if history["corrections"] is None:
        parts.append("the file does not tell of corrections")
    else:
        parts.append("corrections " + (", ".join(history["corrections"]) or "none"))
    if history["another_state"]:
        parts.append("perhaps another state: " + ", ".join(history["another_state"]))
    return "; ".join(parts)
