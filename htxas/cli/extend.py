"""``htxas campaign extend``: which molecules to compute next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from htxas.learn.choose.extend import Proposal
    from htxas.learn.data.source import Source
    from htxas.store.store import Store

__all__ = ["extend"]

_SHOWN = 3


@click.command()
@click.argument("name")
@click.option(
    "--by",
    "strategy",
    type=click.Choice(["uncertainty", "diversity", "random"]),
    required=True,
    help="uncertainty: what takes most disagreement out of a model from structure to spectrum; diversity: what is "
    "farthest from everything computed; random: to compare with.",
)
@click.option("--budget", type=click.IntRange(1), required=True, metavar="N", help="How many molecules.")
@click.option(
    "--from",
    "candidates",
    type=click.Path(path_type=Path),
    required=True,
    metavar="LIST",
    help="Candidates: a CSV with a column smiles, or a .smi file; may be compressed.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="FILE|CAMPAIGN",
    help="Learn from these instead of NAME: exported dataset files or campaigns. May be repeated.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("excitation_energy",),
    show_default=True,
    metavar="NAME",
    help="What the model is to know besides the spectrum. May be repeated.",
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="NEXT.smi", help="[default: NAME-next.smi]"
)
@click.option("--seed", default=0, show_default=True, help="Of the trees and of the random choice.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with every molecule that was left out.")
def extend(
    name: str,
    strategy: str,
    budget: int,
    candidates: Path,
    datasets: tuple[str, ...],
    targets: tuple[str, ...],
    output: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Propose which molecules of a list to compute next for campaign NAME.

    What is computed trains an ensemble of trees from structure (descriptors of the SMILES) to spectrum. Molecules of
    these campaigns that still wait count as known. Writes a SMILES list and, beside it, a campaign file of the same
    calculations; submits nothing.

    \b
    htxas campaign extend qm9 --by uncertainty --budget 200 --from all.csv
    htxas campaign extend qm9 --by diversity --budget 50 --from all.smi --output more.smi
    htxas campaign extend reference --by uncertainty --budget 100 --from all.csv --dataset reference.h5
    """
    from htxas.learn.choose.extend import propose, smi_text, write_new
    from htxas.learn.choose.known import gather
    from htxas.learn.choose.strategies import Strategy
    from htxas.learn.data.recipe import Window
    from htxas.learn.data.source import FileSource, StoreSource
    from htxas.learn.data.targets import describe

    for target in targets:
        describe(target)
    with ExitStack() as stack:
        store, why_not = _store(stack, name, datasets)
        sources = [_source(store, d) for d in datasets or (name,)]
        known = gather(sources, targets, Window())
        document = None
        pending: list[str] = []
        notes = []
        if store is not None:
            document = _campaign(store, name, sources)
            campaigns = {s.campaign for s in sources if isinstance(s, StoreSource)}
            campaigns |= set() if document is None else {name}
            pending = [s for campaign in sorted(campaigns) for s in _smiles(store, campaign)]
        if document is None:
            files = " ".join(s.path.name for s in sources if isinstance(s, FileSource))
            notes.append(f"campaign {name} is known from {files} alone{why_not}")
        taken = set() if store is None else {c["name"] for c in store.campaigns()}
    proposal = propose(known, pending, candidates, strategy=Strategy(strategy), budget=budget, seed=seed)
    smi = output if output is not None else Path(f"{name}-next.smi")
    write_new(smi, smi_text(proposal.choices))
    following = _following(smi, name, taken, document)
    if as_json:
        from htxas.report.terminal import to_json

        more = {"campaign": name, "seed": seed, "targets": targets, "output": str(smi), "notes": notes}
        click.echo(to_json({**more, **asdict(proposal), "next": following}))
        return
    _print(name, proposal, smi, [*notes, following])


def _store(stack: ExitStack, name: str, datasets: Sequence[str]) -> tuple[Store | None, str]:
    """Open the store; without one, files that were exported from NAME tell of it."""
    from htxas.errors import DatabaseUnavailable
    from htxas.store.store import Store

    try:
        return stack.enter_context(Store.open()), ""
    except DatabaseUnavailable as error:
        if not datasets or not all(Path(d).is_file() for d in datasets):
            raise
        _refuse_strangers(name, datasets)
        return None, f": {error}"


def _refuse_strangers(name: str, files: Iterable[str]) -> None:
    from htxas.datafile import DatasetFile
    from htxas.errors import NotFound

    campaigns = []
    for path in files:
        with DatasetFile(path) as data:
            campaigns.append(data.meta.campaign)
    if name not in campaigns:
        raise NotFound(
            f"no campaign is called {name!r}",
            where=", ".join(files),
            hint="exported from " + ", ".join(campaigns),
        )


def _source(store: Store | None, dataset: str) -> Source:
    from htxas.learn.data.source import FileSource, StoreSource

    if Path(dataset).is_file():
        return FileSource(Path(dataset))
    assert store is not None  # _store made sure
    return StoreSource(store, dataset)


def _campaign(store: Store, name: str, sources: Sequence[Source]) -> dict[str, Any] | None:
    """Return the campaign's document; None if the database lacks it, but a file was exported from it."""
    from htxas.errors import NotFound
    from htxas.learn.data.source import FileSource

    try:
        return store.campaign(name)
    except NotFound:
        files = [str(s.path) for s in sources if isinstance(s, FileSource)]
        if not files:
            raise
        _refuse_strangers(name, files)
        return None


def _smiles(store: Store, name: str) -> list[str]:
    """Return the canonical SMILES of all molecules of a campaign that have one."""
    from htxas.learn.data.chemistry import canonical_smiles

    return [canonical_smiles(m.smiles, m.name) for m in store.molecules(name) if m.smiles]


def _following(smi: Path, name: str, taken: set[str], document: dict[str, Any] | None) -> str:
    from htxas.learn.choose.next_campaign import free_name, write_campaign

    new = free_name(name, taken)
    path = smi.with_suffix(".yaml")
    if document is not None and write_campaign(path, smi, new, document):
        return f"next: htxas campaign plan {path}"
    return (
        f"next: copy the campaign file of {name} with campaign: {new} and structures: file: {smi}; "
        "htxas campaign plan COPY"
    )


def _print(name: str, proposal: Proposal, smi: Path, lines: Sequence[str]) -> None:
    from rich.table import Table

    from htxas.cli._text import names, plural
    from htxas.report.terminal import console

    score = {"uncertainty": "takes away", "diversity": "distance"}.get(proposal.strategy.value)
    by = {"random": "at random"}.get(proposal.strategy.value, f"by {proposal.strategy.value}")
    table = Table("molecule", "SMILES", title=f"{name}: {plural(len(proposal.choices), 'molecule')} {by}")
    for heading in filter(None, ("disagreement" if proposal.disagreement else None, score)):
        table.add_column(heading, justify="right")
    table.add_column("nearest computed")
    table.add_column("similarity", justify="right")
    for c in proposal.choices:
        numbers = [] if c.disagreement is None else [f"{c.disagreement:.2f}"]
        if c.score is not None:
            numbers.append(f"{c.score:.2%}" if proposal.disagreement else f"{c.score:.2f}")
        table.add_row(c.name, c.smiles, *numbers, c.nearest, f"{c.similarity:.2f}")
    console().print(table)
    left = sum(map(len, proposal.left_out.values()))
    click.echo(
        f"from {proposal.candidates - left:,} of {plural(proposal.candidates, 'candidate')}, knowing "
        f"{plural(proposal.known, 'computed molecule')} and {proposal.pending:,} that wait"
    )
    if proposal.disagreement:
        median, largest = proposal.disagreement
        total = sum(c.score or 0.0 for c in proposal.choices)
        click.echo(
            f"disagreement of the trees over the list: median {median:.2f}, largest {largest:.2f} of the computed "
            f"spectra's spread; the chosen should take {total:.0%} of its square away"
        )
    for reason, who in sorted(proposal.left_out.items(), key=lambda item: -len(item[1])):
        click.echo(f"left out ({len(who):,}): {reason}: {names(who[:_SHOWN], len(who))}")
    for reason, who in proposal.known_left_out.items():
        click.echo(
            f"computed, but not learned from ({len(who):,}): {reason}: {names(who[:_SHOWN], len(who))}"
        )
    click.echo(f"written: {smi}")
    for line in lines:
        click.echo(line)
