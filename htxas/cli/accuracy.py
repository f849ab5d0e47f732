"""``htxas accuracy``: an engine's presets beside experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from htxas.report.accuracy import Comparison, Experiment

__all__ = ["accuracy"]


@click.command()
@click.option("--engine", "engine_name", default="pyscf", show_default=True, help="Engine to judge.")
@click.option("--preset", "presets", multiple=True, help="Preset; may be given again. [default: all]")
@click.option(
    "-j", "--workers", default=1, show_default=True, type=click.IntRange(1), help="Molecules at a time."
)
@click.option(
    "--experiments", type=click.Path(dir_okay=False, path_type=Path), help="Your own file of experiments."
)
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep the run folders here.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@click.option("--markdown", is_flag=True, help="A Markdown table, as in the README.")
def accuracy(
    engine_name: str,
    presets: tuple[str, ...],
    workers: int,
    experiments: Path | None,
    keep: Path | None,
    as_json: bool,
    markdown: bool,
) -> None:
    """Compute gas-phase molecules and print first peaks and ionisation energies beside experiment.

    No shift is fitted. The calculations run in their own processes and do not touch the database.

    \b
    Examples:
      htxas accuracy -j 2
      htxas accuracy --preset published --json
    """
    import json
    import tempfile
    from contextlib import nullcontext

    from rich.console import Console

    from htxas.assets import workflow
    from htxas.engines.registry import get_engine
    from htxas.report.accuracy import compare, load_experiments

    engine = get_engine(engine_name)
    known, element, edge = load_experiments(experiments or workflow("accuracy/gas_phase.json"))
    chosen = presets or tuple(engine.presets)
    for preset in chosen:
        engine.resolve(preset, {}, element=element, edge=edge)
    console = Console(stderr=True)
    folder = nullcontext(str(keep)) if keep else tempfile.TemporaryDirectory(prefix="htxas-accuracy-")
    with folder as directory, console.status("running") as status:
        done = 0

        def show(row: Comparison) -> None:
            nonlocal done
            done += 1
            status.update(f"{done}/{len(known) * len(chosen)} {row.preset} {row.molecule}")

        rows = compare(
            engine, known, chosen, Path(directory), element=element, edge=edge, workers=workers, progress=show
        )
    if as_json:
        click.echo(json.dumps([row.to_dict() for row in rows], indent=1))
    elif markdown:
        click.echo("\n".join(_markdown(known, rows, chosen)))
    else:
        _print(known, rows, chosen)


def _cell(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" + ("" if error is None else f" ({error:+.2f})")


def _columns(presets: tuple[str, ...]) -> list[str]:
    return [
        "molecule",
        *(f"first peak, {p}" for p in ("experiment", *presets)),
        *(f"1s ionisation, {p}" for p in ("experiment", *presets)),
        *(f"seconds, {p}" for p in presets),
    ]


def _table(known: list[Experiment], rows: list[Comparison], presets: tuple[str, ...]) -> list[list[str]]:
    from htxas.report.accuracy import mean_absolute_error

    by = {(r.molecule, r.preset): r for r in rows}
    table = []
    for x in known:
        mine = [by[x.name, p] for p in presets]
        table.append(
            [
                x.name,
                "" if x.first_peak_eV is None else f"{x.first_peak_eV:.1f} {x.peak}",
                *(_cell(r.first_peak_eV, r.first_peak_error_eV) for r in mine),
                "" if x.ionization_eV is None else f"{x.ionization_eV:.1f}",
                *(_cell(r.ionization_eV, r.ionization_error_eV) for r in mine),
                *(f"{r.seconds:.1f}" for r in mine),
            ]
        )
    of = {p: [r for r in rows if r.preset == p] for p in presets}
    table.append(
        [
            "mean absolute error",
            "",
            *(f"{mean_absolute_error(r.first_peak_error_eV for r in of[p]):.2f}" for p in presets),
            "",
            *(f"{mean_absolute_error(r.ionization_error_eV for r in of[p]):.2f}" for p in presets),
            *("" for _ in presets),
        ]
    )
    return table


def _markdown(known: list[Experiment], rows: list[Comparison], presets: tuple[str, ...]) -> list[str]:
    columns = _columns(presets)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(row) + " |" for row in _table(known, rows, presets)]


def _print(known: list[Experiment], rows: list[Comparison], presets: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="absolute energies in eV, computed (minus experiment); no shift fitted")
    for name in _columns(presets):
        table.add_column(name, justify="left" if name == "molecule" else "right")
    body = _table(known, rows, presets)
    for row in body[:-1]:
        table.add_row(*row)
    table.add_section()
    table.add_row(*body[-1])
    Console().print(table)
