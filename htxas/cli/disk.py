"""``htxas disk``: what is used, and packing what is finished."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from htxas.launch.disk.keeper import Packed
    from htxas.launch.watching.survey import Survey
    from htxas.store.store import Store

__all__ = ["disk"]

_LOOK_S = 3.0


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--scan", is_flag=True, help="Walk everything instead of a sample; slow with a million files.")
@click.pass_context
def disk(ctx: click.Context, as_json: bool, scan: bool) -> None:
    """Show what htxas takes on this disk, by campaign and state, and what packing would free.

    The tree of run folders is hashed, so a part of it tells the whole: three seconds of looking are within a few
    percent. Small trees are measured completely.

    \b
    htxas disk
    htxas disk --scan --json
    htxas disk pack --dry-run
    htxas disk pack
    htxas disk unpack 3f9a
    """
    if ctx.invoked_subcommand is not None:
        return
    from htxas.errors import DatabaseUnavailable
    from htxas.launch.disk.usage import DiskQuota
    from htxas.report.terminal import to_json
    from htxas.store.store import Store

    visible = scan and not as_json
    try:
        with Store.open() as store:
            found = _survey(store, scan, visible)
    except DatabaseUnavailable as error:  # disks are looked at when something is wrong
        click.echo(f"htxas: {error}; campaigns and states are not known", err=True)
        found = _survey(None, scan, visible)
    room = DiskQuota().room()
    if as_json:
        click.echo(to_json(_document(found, room.why)))
        return
    _print(found, room.why)


def _survey(store: Store | None, scan: bool, visible: bool) -> Survey:
    from rich.progress import Progress

    from htxas.launch.watching.survey import survey
    from htxas.report.terminal import error_console

    with Progress(console=error_console(), transient=True, disable=not visible) as bar:
        task = bar.add_task("walking the run folders")
        return survey(
            store,
            budget_s=None if scan else _LOOK_S,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _document(found: Survey, problem: str) -> dict[str, Any]:
    from dataclasses import asdict

    from htxas.launch.disk.usage import file_system
    from htxas.settings import home

    return {
        "home": str(home()),
        "exact": found.seen == found.present,
        "walked": found.seen,
        "folders": found.present,
        "runs": [asdict(row) for row in found.rows],
        "others": {name: asdict(usage) for name, usage in found.others.items()},
        "file_system": file_system(),
        "problem": problem or None,
    }


def _print(found: Survey, problem: str) -> None:
    from rich.table import Table

    from htxas.launch.disk.usage import file_system
    from htxas.report.terminal import console
    from htxas.report.words import size
    from htxas.settings import home

    table = Table("campaign", "state", "folders", "archives", "files", "size", "can be freed")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in found.rows:
        free = f"{size(row.free_bytes)}, {row.free_files:,} files" if row.free_files else "-"
        numbers = f"{row.folders:,}", f"{row.archives:,}", f"{row.files:,}", size(row.bytes)
        table.add_row(row.campaign, row.state, *numbers, free)
    table.add_section()
    for name, usage in found.others.items():
        table.add_row(name, "", "", "", f"{usage.files:,}", size(usage.bytes), "")
    total_bytes = sum(r.bytes for r in found.rows) + sum(u.bytes for u in found.others.values())
    total_files = sum(r.files for r in found.rows) + sum(u.files for u in found.others.values())
    table.add_section()
    table.add_row("all", "", "", "", f"{total_files:,}", size(total_bytes), "")
    lines = [str(home())]
    if found.seen < found.present:
        lines.append(f"estimated from {found.seen} of {found.present} folders; --scan walks all")
    left = file_system()
    files = f" and {left['free_files']:,} files" if left["files"] else ""
    lines.append(f"free on the file system: {size(left['free_bytes'])}{files}")
    if problem:
        lines.append(problem)
    if any(r.free_files for r in found.rows):
        lines.append("htxas disk pack frees what can be freed; results are in the database")
    table.caption = "\n".join(lines)
    console().print(table)


@disk.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be packed.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def pack(dry_run: bool, as_json: bool) -> None:
    """Thin and compress the run folders of finished calculations, one file each.

    Only what the database has a result (or a final failure) of is touched. Done calculations keep inputs, outputs
    that can be read again, and logs; failed ones keep everything but large files. The folder of a ground state waits
    for the last of its sites. Safe to interrupt and to run beside working agents.
    """
    from dataclasses import asdict

    from rich.progress import Progress

    from htxas.launch.disk.keeper import pack_finished
    from htxas.report.terminal import error_console, to_json
    from htxas.store.store import Store

    with Store.open() as store, Progress(console=error_console(), transient=True, disable=as_json) as bar:
        task = bar.add_task("packing", total=1.0)
        done = pack_finished(
            store, dry_run=dry_run, on_progress=lambda share, _: bar.update(task, completed=share)
        )
    if as_json:
        click.echo(to_json({**asdict(done), "dry_run": dry_run}))
    else:
        click.echo("\n".join(_said(done, dry_run)))


def _said(done: Packed, dry_run: bool) -> list[str]:
    from htxas.report.words import plural, size

    verb, at_most = ("would pack", "at most ") if dry_run else ("packed", "")
    lines = [
        f"{verb} {plural(done.attempts, 'folder')} of {plural(done.calculations, 'calculation')} and "
        f"{plural(done.owners, 'folder')} of past agents: {at_most}{size(done.freed_bytes)} and "
        f"{plural(done.freed_files, 'file')} less"
    ]
    for count, why in (
        (done.unfinished, "not finished"),
        (done.waiting, "a ground state that an unfinished site needs"),
        (done.strange, "not of this database"),
    ):
        if count:
            lines.append(f"{plural(count, 'folder')} left as they are: {why}")
    return lines + done.problems


@disk.command()
@click.argument("key")
@click.option("--attempt", type=click.IntRange(1), help="By default the last.")
@click.option("--to", type=click.Path(path_type=Path), help="Folder to make; by default KEY-ATTEMPT, here.")
def unpack(key: str, attempt: int | None, to: Path | None) -> None:
    """Unpack the run folder of a calculation into a new folder; the archive stays.

    \b
    htxas disk unpack 3f9a0c
    htxas disk unpack 3f9a0c --attempt 1 --to /tmp/first
    """
    from htxas.errors import NotFound, UserError
    from htxas.launch.disk.archive import archive_path, archives_of, matching_archives, unpack

    keys = matching_archives(key)
    if len(keys) != 1:
        raise NotFound(
            "several packed calculations start like that"
            if keys
            else "no packed calculation starts like that",
            where=key,
            hint=", ".join(k[: len(key) + 6] for k in keys[:3]) or "htxas query lists keys",
        )
    (full,) = keys
    attempts = archives_of(full)
    chosen = attempts[-1] if attempt is None else attempt
    if chosen not in attempts:
        raise NotFound(
            f"attempt {chosen} is not packed", where=full, hint="packed: " + ", ".join(map(str, attempts))
        )
    folder = to or Path(f"{full[:12]}-{chosen}")
    if folder.exists():
        raise UserError("there is such a folder already", where=str(folder), hint="--to OTHER")
    manifest = unpack(archive_path(full, chosen), folder)
    click.echo(str(folder))
    for left in manifest.get("left_out", []):
        click.echo(f"  left out when it was packed: {left['name']}, {left['bytes']:,} bytes", err=True)
