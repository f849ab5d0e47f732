"""``htxas campaign``: from a campaign file to the queue."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from htxas.cli._progress import progress
from htxas.cli.control import budget, cancel, pause, priority, resume
from htxas.cli.extend import extend

if TYPE_CHECKING:
    from htxas.campaign.plan import Plan
    from htxas.launch.preview import Preview
    from htxas.store.store import Store

__all__ = ["campaign"]

_SHOWN = 10
_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def campaign() -> None:
    """Plan and submit a campaign file; steer what was submitted.

    \b
    htxas campaign plan FILE       molecules, unique sites, cost; writes nothing
    htxas campaign submit FILE     put it into the database; twice adds nothing
    htxas campaign list            what has been submitted
    htxas campaign extend NAME     which molecules of a list to compute next
    htxas campaign pause NAME      and resume, cancel, priority, budget
    """


for _verb in (pause, resume, cancel, priority, budget, extend):
    campaign.add_command(_verb)


@campaign.command()
@_FILE
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def plan(file: Path, as_json: bool) -> None:
    """Show what FILE would compute: molecules, unique sites, what is done already, cost, batches.

    Writes nothing to the database, and works without one. Geometries of SMILES are made here and kept.

    \b
    htxas campaign plan quickstart.yaml
    htxas campaign plan quickstart.yaml --json | jq .new_estimate_s
    """
    from htxas.launch.preview import preview

    store, why_not = _store_if_any()
    try:
        with _surveyed(file, quiet=as_json) as planned:
            found = preview(planned, store)
            if as_json:
                click.echo(json.dumps(found.to_dict(planned), indent=1))
            else:
                _print_plan(planned, found, why_not)
    finally:
        if store is not None:
            store.close()


@campaign.command()
@_FILE
@click.option("--dry-run", is_flag=True, help="The same as plan.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def submit(context: click.Context, file: Path, dry_run: bool, as_json: bool) -> None:
    """Put FILE into the database and the queue.

    Doing it again adds nothing; if it was interrupted, doing it again completes it.

    \b
    htxas campaign submit quickstart.yaml
    htxas run -j 2
    """
    if dry_run:
        context.invoke(plan, file=file, as_json=as_json)
        return
    from htxas.launch.pad.launchpad import launchpad_of
    from htxas.launch.submit import submit as submit_plan
    from htxas.store.store import Store

    with (
        Store.open() as store,
        launchpad_of(store) as launchpad,
        _surveyed(file, quiet=as_json) as planned,
        progress("submitting", planned.survey.molecules, quiet=as_json) as advance,
    ):
        done = submit_plan(store, launchpad, planned, advance)
    name = planned.campaign.name
    if as_json:
        from htxas.launch.preview import skipped_document

        document = {
            "campaign": name,
            "molecules": done.molecules,
            "calculations": done.calculations,
            "known": done.known,
            "batches": done.batches,
            "skipped": skipped_document(planned.survey.skipped),
        }
        click.echo(json.dumps(document, indent=1))
        return
    from htxas.cli._text import plural

    if done.calculations or done.molecules:
        click.echo(
            f"{name}: submitted {plural(done.molecules, 'molecule')}, {plural(done.calculations, 'calculation')} "
            f"in {plural(done.batches, 'batch')}; {done.known:,} were known"
        )
    else:
        click.echo(f"{name}: nothing to add, all {done.known:,} calculations were known")
    _print_left_out(planned)
    click.echo(f"next: htxas run -j 2 --campaign {name}")


@campaign.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_(as_json: bool) -> None:
    """List submitted campaigns, oldest first."""
    from htxas.domain.calculation import State
    from htxas.store.store import Store

    with Store.open() as store:
        rows = [(c, store.counts(c["name"])) for c in store.campaigns()]
        controls = store.controls()
    if as_json:
        document = [
            {
                "name": c["name"],
                "created": c["created"].isoformat(),
                "engine": c["engine"],
                "preset": c["preset"],
                "element": c["element"],
                "edge": c["edge"],
                "counts": {s.value: n for s, n in counts.items()},
                "control": asdict(controls[c["name"]]),
            }
            for c, counts in rows
        ]
        click.echo(json.dumps(document, indent=1))
        return
    if not rows:
        click.echo("no campaign yet: htxas campaign submit FILE")
        return
    from rich.table import Table

    from htxas.report.terminal import console

    table = Table("campaign", "submitted", "engine", "edge", "done", "of", "state", "priority")
    for c, counts in rows:
        table.add_row(
            c["name"],
            f"{c['created']:%Y-%m-%d %H:%M}",
            f"{c['engine']} {c['preset']}",
            f"{c['element']} {c['edge']}",
            f"{counts[State.DONE]:,}",
            f"{sum(counts.values()):,}",
            controls[c["name"]].state.value,
            str(controls[c["name"]].priority),
        )
    console().print(table)


def _store_if_any() -> tuple[Store | None, str]:
    from htxas.errors import DatabaseUnavailable
    from htxas.store.store import Store

    try:
        return Store.open(), ""
    except DatabaseUnavailable as error:
        return None, str(error)


@contextmanager
def _surveyed(file: Path, *, quiet: bool) -> Iterator[Plan]:
    """Read the file and all its molecules, with a counter on a terminal."""
    from htxas.campaign.file import load_campaign
    from htxas.campaign.plan import Plan

    checked = load_campaign(file)
    with progress("reading molecules", None, quiet=quiet) as advance:
        planned = Plan(checked, lambda: advance(1))
    with planned:
        yield planned


def _print_plan(planned: Plan, found: Preview, why_not: str) -> None:
    from rich.table import Table

    from htxas.cli._text import duration
    from htxas.report.terminal import console

    c, s = planned.campaign, planned.survey
    table = Table(title=f"{c.name}: {c.element} {c.edge} edge, {c.engine} {c.preset}", show_header=False)
    table.add_row("molecules", f"{s.molecules:,}")
    table.add_row(
        "unique sites", f"{s.sites:,} of {s.atoms:,} {c.element} atoms, at {c.symmetry_tolerance_A} A"
    )
    kinds = "one ground state per molecule, one per site" if s.grounds else "one per site"
    table.add_row("calculations", f"{s.calculations:,}: {kinds}")
    if found.checked:
        table.add_row("done already", f"{found.done:,}")
        table.add_row("submitted, not done", f"{found.known:,}")
    table.add_row("new", f"{found.new:,} in {found.batches:,} batches")
    table.add_row("cost of the new", f"{duration(found.new_estimate_s)} on one core ({found.calibration})")
    table.add_row("largest molecule", duration(found.calibration.total_s(*s.largest)))
    table.add_row("stored grid", f"sigma {c.sigma_eV} eV, step {c.step_eV} eV")
    console().print(table)
    _print_left_out(planned)
    if not found.checked:
        click.echo(f"without a database, so nothing counts as done: {why_not}")
    if s.refused.count:
        click.echo(f"cannot be computed ({s.refused.count:,}); submit will refuse this file:")
        for line in s.refused.names:
            click.echo(f"  {line}")
    else:
        click.echo(f"nothing was written; next: htxas campaign submit {c.path}")


def _print_left_out(planned: Plan) -> None:
    without = planned.survey.without_element
    if without.count:
        click.echo(f"left out, no {planned.campaign.element} in them ({without.count:,}): {without}")
    skipped = planned.survey.skipped
    if not skipped:
        return
    why = ", ".join(f"{count:,} {kind}" for kind, count in Counter(s.why for s in skipped).most_common())
    click.echo(f"skipped, as on_error says ({len(skipped):,}): {why}")
    for one in skipped[:_SHOWN]:
        click.echo(f"  {one}")
    if len(skipped) > _SHOWN:
        click.echo(f"  and {len(skipped) - _SHOWN:,} more: --json lists all")
