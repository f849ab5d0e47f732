"""``htxas ingest``: runs that exist, adopted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from htxas.launch.ingest.bring import Ingested

__all__ = ["ingest"]

_SHOWN = 5
_WORDS = {
    "dead": "ended before its end",
    "unconverged": "did not converge",
    "damaged": "damaged",
    "unsupported": "of a kind htxas cannot say",
    "no_input": "without input or log",
    "equivalent": "another folder has the same site",
    "contradicts": "another folder has the same site, and another spectrum",
    "short": "too short for the broadening",
    "unreadable": "cannot be looked into",
    "name": "named like another structure",
}


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path, file_okay=False)
)
@click.option("--campaign", "-c", required=True, metavar="NAME", help="Campaign that is to have them.")
@click.option("--engine", metavar="NAME", help="Look only for runs of this engine.")
@click.option(
    "--jobs", "-j", default=2, show_default=True, type=click.IntRange(1), help="Processes that read."
)
@click.option(
    "--symmetry-tolerance",
    "tolerance_A",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0.0, 0.2, min_open=True),
    metavar="ANGSTROM",
    help="Within it two atoms are one site.",
)
@click.option(
    "--sigma", "sigma_eV", default=0.5, show_default=True, type=click.FloatRange(0.01, 10.0), metavar="EV"
)
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="All that was left out, as CSV.",
)
@click.option("--dry-run", is_flag=True, help="Read and judge, store nothing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def ingest(
    paths: tuple[Path, ...],
    campaign: str,
    engine: str | None,
    jobs: int,
    tolerance_A: float,
    sigma_eV: float,
    report: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Adopt run folders that exist: FEFF's, wherever they lie below PATH.

    Structure, site and parameters are read from the inputs, so a run has the identity it would have if htxas had made
    it, and nothing is computed again that is here. Results pass the same gate. The folders are only read. What is in
    the database stays as it is: the same folders twice add nothing, and a call that was interrupted is repeated.

    \b
    htxas ingest /data/feff/Cu -c copper
    htxas ingest runs-2023 runs-2024 -c old --report left-out.csv
    htxas ingest /data/feff/Cu -c copper --dry-run
    """
    import re
    from contextlib import ExitStack

    from htxas.cli._progress import progress
    from htxas.errors import UserError
    from htxas.launch.ingest.bring import Left, judge
    from htxas.launch.ingest.bring import ingest as bring_in
    from htxas.launch.ingest.folders import find
    from htxas.launch.pad.launchpad import launchpad_of
    from htxas.store.store import Store

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", campaign):
        raise UserError(f"{campaign!r} cannot be a name", where="--campaign", hint="letters, digits, . _ -")
    unreadable: list[tuple[str, str]] = []
    folders = list(find(paths, [engine] if engine else None, lambda *what: unreadable.append(what)))
    if not folders:
        raise UserError(
            "no run folders in it", where=", ".join(map(str, paths)), hint="FEFF's have a feff.inp"
        )
    with ExitStack() as stack:
        advance = stack.enter_context(progress("reading runs", len(folders), quiet=as_json))
        if dry_run:
            told = judge(
                folders,
                tolerance_A=tolerance_A,
                sigma_eV=sigma_eV,
                step_eV=0.1,
                jobs=jobs,
                on_folders=advance,
            )
        else:
            store = stack.enter_context(Store.open())
            launchpad = stack.enter_context(launchpad_of(store))
            told = bring_in(
                store,
                launchpad,
                folders,
                campaign,
                tolerance_A=tolerance_A,
                sigma_eV=sigma_eV,
                step_eV=0.1,
                jobs=jobs,
                on_folders=advance,
            )
    told.left += [Left(path, "unreadable", why) for path, why in unreadable]
    if report is not None:
        _write_report(told, report)
    if as_json:
        from htxas.report.terminal import to_json

        click.echo(to_json(told.to_dict()))
        return
    for line in _lines(told, dry_run=dry_run):
        click.echo(line)
    if report is not None and told.left:
        click.echo(f"left out: {report}")


def _lines(told: Ingested, *, dry_run: bool) -> Iterator[str]:
    from htxas.cli._text import plural

    did = "sound" if dry_run else "stored"
    refused = sum(told.quarantined.values())
    parts = [f"{told.stored:,} {did}"]
    if told.known:
        parts.append(f"{told.known:,} known")
    if told.refused_before:
        parts.append(f"{told.refused_before:,} refused by the gate before")
    if refused:
        parts.append(f"{refused:,} refused by the gate")
    if told.left:
        parts.append(f"{len(told.left):,} left out")
    yield f"{plural(told.folders, 'run')}: {', '.join(parts)}"
    for name, count in told.campaigns.items():
        yield f"  campaign {name}: {count:,}"
    for message, count in sorted(told.quarantined.items(), key=lambda item: -item[1])[:_SHOWN]:
        yield f"  refused {count:,}: {message}"
    for name, count in told.warnings.items():
        yield f"  {count:,} sound ones warned of {name.replace('_', ' ')} on their way"
    why = Counter(left.why for left in told.left)
    for reason, count in why.most_common():
        first = next(left for left in told.left if left.why == reason)
        yield f"  {count:,} {_WORDS.get(reason, reason)}: {first.folder}: {first.message}"


def _write_report(told: Ingested, path: Path) -> None:
    import csv

    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("folder", "why", "message"))
        rows.writerows((left.folder, left.why, left.message) for left in told.left)
