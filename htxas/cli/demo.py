"""``htxas demo``: the quickstart campaign from SMILES to trained models, as the commands a user would type."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

__all__ = ["PICTURED", "demo"]

CAMPAIGN = "quickstart"
PICTURED = ("ethanol", "acetonitrile", "furan", "dimethylformamide")
"""Molecules the demo draws: sigma and pi bonds, a ring, and two methyl groups that are alike only on paper."""

# A database of the user's own is none of the demo's business.
_OTHER_DATABASES = ("HTXAS_DB_URI", "HTXAS_DB_URI_FILE")


@click.command()
@click.option(
    "-j", "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Workers, one core each."
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-run"),
    show_default=True,
    help="Everything goes here: database, runs, pictures, models.",
)
def demo(jobs: int, folder: Path) -> None:
    """Molecules to trained models in one go, in a folder of its own: of properties, and of densities of states.

    Types the commands below for you, with a private database in the folder. Again: nothing is computed twice.
    After Ctrl-C: carries on.
    """
    from htxas import assets

    campaign = str(assets.workflow(f"{CAMPAIGN}/campaign.yaml"))
    trainings = {
        name: str(assets.workflow(f"{CAMPAIGN}/{file}"))
        for name, file in (("properties", "train.yaml"), ("pdos", "train_pdos.yaml"))
    }
    pictures = folder / "pictures"
    start = time.monotonic()
    with _home(folder), _say_how_to_carry_on():
        pictures.mkdir(parents=True, exist_ok=True)
        _refuse_other_content(folder, Path(campaign))
        with _database():
            _type("campaign", "plan", campaign)
            _type("campaign", "submit", campaign)
            _type("run", "-j", str(jobs), "--campaign", CAMPAIGN)
            _type("status", CAMPAIGN)
            for name in PICTURED:
                _type(
                    "molecule",
                    "plot",
                    name,
                    "--campaign",
                    CAMPAIGN,
                    "--output",
                    str(pictures / f"{name}.png"),
                )
            for name, training in trainings.items():
                _type("train", training, "--workers", str(jobs), "--out", str(folder / "models" / name))
    _say_what_is_where(folder, pictures, time.monotonic() - start)


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Make ``folder`` the home of htxas, for this process and its workers."""
    before = {name: os.environ.pop(name, None) for name in ("HTXAS_HOME", *_OTHER_DATABASES)}
    for name in _OTHER_DATABASES:
        if before[name]:
            click.echo(f"{name} is set, but the demo uses its own database in {folder}", err=True)
    os.environ["HTXAS_HOME"] = str(folder.absolute())
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _refuse_other_content(folder: Path, campaign: Path) -> None:
    """Refuse a folder in which another htxas left a demo with other parameters or molecules."""
    from htxas.campaign.file import load_campaign
    from htxas.domain.identity import content_key
    from htxas.errors import UserError

    note = folder / "demo-content"
    content = content_key(load_campaign(campaign).document)
    if not note.exists():
        note.write_text(content + "\n")
    elif note.read_text().strip() != content:
        raise UserError(
            "the demo of another version of htxas ran here",
            where=str(folder),
            hint=f"take another folder with --dir, or delete {folder}",
        )


@contextmanager
def _database() -> Iterator[None]:
    """Have the private server run; one that was started here is stopped however the demo ends."""
    from htxas.store.server import PrivateServer

    ran_before = PrivateServer().status().state == "up"
    _type("db", "up")
    try:
        yield
    finally:
        if not ran_before:
            _type("db", "down")


@contextmanager
def _say_how_to_carry_on() -> Iterator[None]:
    try:
        yield
    except (click.Abort, click.exceptions.Exit):
        click.echo("\nstopped; what is computed is kept: the same command carries on")
        raise


def _type(*words: str) -> None:
    """Show a command and run it in this process."""
    from htxas.cli.main import cli

    click.secho(f"\n$ {shlex.join(('htxas', *_shown(words)))}", bold=True)
    status = cli.main(args=list(words), prog_name="htxas", standalone_mode=False)
    if isinstance(status, int) and status != 0:
        raise click.exceptions.Exit(status)


def _shown(words: Sequence[str]) -> list[str]:
    """Return the words with paths as short as they can be read here."""
    here = Path.cwd()
    return [str(Path(w).relative_to(here)) if w.startswith(f"{here}{os.sep}") else w for w in words]


def _say_what_is_where(folder: Path, pictures: Path, seconds: float) -> None:
    click.echo()
    click.echo(f"done in {seconds:.0f} s")
    for what, where in (
        ("pictures of molecules", pictures),
        ("R² tables, plots, models", folder / "models"),
        ("run directories", folder / "runs"),
    ):
        click.echo(f"  {what:26}{where}{os.sep}")
    click.echo("\nlook further:")
    click.echo(f"  export HTXAS_HOME={shlex.quote(str(folder.absolute()))}")
    for line in (
        "htxas db up",
        "htxas query --contains N",
        "htxas molecule show furan",
        f"htxas export {CAMPAIGN} --format hdf5",
        "htxas db down",
    ):
        click.echo(f"  {line}")
