"""``htxas model``: trained models, in the database and on disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from htxas.learn.serve.registry import Comparison
    from htxas.store.records import ModelRecord

__all__ = ["model"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")


@click.group()
def model() -> None:
    """List, show, compare and export trained models.

    A model is TRAINING/TARGET-KIND, its folder, or the first digits of a registered key. `htxas train` registers models
    in the database where there is one; those on disk are listed and usable without.

    \b
    htxas model list
    htxas model show quickstart/gap-A
    htxas model compare quickstart/gap-A quickstart/gap-B
    htxas model export quickstart/gap-A --output gap.onnx
    """


@model.command(name="list")
@click.option("--target", metavar="NAME", help="Only models that predict this.")
@_JSON
def list_(target: str | None, as_json: bool) -> None:
    """List models: registered ones, newest first, then those only on this machine.

    \b
    htxas model list --target gap
    htxas model list --json | jq '.models[].targets'
    """
    from htxas.learn.serve.registry import database, known
    from htxas.report.terminal import console, to_json
    from htxas.settings import models_folder

    with database() as store:
        records = [r for r in known(models_folder(), store) if target is None or target in r.targets]
    missing = store if isinstance(store, str) else None
    if as_json:
        click.echo(to_json({"database": missing or "asked", "models": [_document(r) for r in records]}))
        return
    if records:
        console().print(_listing(records))
    else:
        click.echo("no models; htxas train FILE.yaml")
    if missing is not None:
        click.echo(f"on this machine only: {missing}")


@model.command()
@click.argument("name", metavar="MODEL")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Show the card of a model: what it was made of, how good it is beside baselines, where it is.

    \b
    htxas model show quickstart/gap-A
    htxas model show fa4d03 --json
    """
    from htxas.learn.serve.registry import database, find_record
    from htxas.report.terminal import console, to_json
    from htxas.settings import models_folder

    with database() as store:
        record = find_record(name, models_folder(), store)
    if as_json:
        click.echo(to_json(_document(record)))
        return
    out = console()
    out.print(_facts(record), soft_wrap=True)
    out.print(_methods(record))


@model.command()
@click.argument("names", metavar="MODEL MODEL...", nargs=-1, required=True)
@_JSON
def compare(names: tuple[str, ...], as_json: bool) -> None:
    """Compare models that predict the same; says where their test sets differ.

    \b
    htxas model compare quickstart/gap-A quickstart/gap-B
    """
    from htxas.errors import UserError
    from htxas.learn.serve.registry import compare as compared
    from htxas.learn.serve.registry import database, find_record
    from htxas.report.terminal import console, to_json
    from htxas.settings import models_folder

    if len(names) < 2:
        raise UserError("give two models or more", where="htxas model compare")
    with database() as store:
        found = compared([find_record(name, models_folder(), store) for name in names])
    if as_json:
        click.echo(
            to_json(
                {
                    "targets": list(found.targets),
                    "same_test_set": found.same_test,
                    "notes": list(found.notes),
                    "models": [_document(r) for r in found.records],
                }
            )
        )
        return
    console().print(_compared(found))
    for note in found.notes:
        click.echo(note)


@model.command()
@click.argument("name", metavar="MODEL")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The .onnx file.")
@_JSON
def export(name: str, output: Path, as_json: bool) -> None:
    """Write a model as ONNX, standardisation included: its input is the spectrum in the window, as it is.

    The file is run and compared with torch on random and on training spectra; one that differs is not left behind.
    Needs the extra "onnx": pip install 'htxas[onnx]'.

    \b
    htxas model export quickstart/gap-A --output gap.onnx
    """
    from htxas.learn.serve.export import export_onnx
    from htxas.learn.serve.model import Model
    from htxas.learn.serve.registry import database, find_folder
    from htxas.report.terminal import to_json
    from htxas.settings import models_folder

    with database() as store:
        found = Model.load(find_folder(name, models_folder(), store))
    report = export_onnx(found, output)
    if as_json:
        click.echo(to_json(report.to_dict()))
        return
    click.echo(report.text)


def _document(record: ModelRecord) -> dict[str, Any]:
    return asdict(record)


def _place(record: ModelRecord, *, short: bool = False) -> str:
    import socket

    if record.host != socket.gethostname():
        return record.host if short else f"{record.host}:{record.folder}"
    there = Path(record.folder).is_dir()
    return ("here" if there else "gone") if short else ("" if there else "gone: ") + record.folder


def _listing(records: list[ModelRecord]) -> Table:
    from rich.table import Table

    table = Table()
    for heading, justify in (
        ("model", "left"), ("key", "left"), ("R²", "right"), ("mean error", "right"), ("90 % covers", "right"),
        ("trained on", "left"), ("registered", "left"), ("place", "left"),
    ):  # fmt: skip
        table.add_column(heading, justify=justify, no_wrap=heading == "model")  # type: ignore[arg-type]
    for r in records:
        scores = [_scores(t) for t in r.targets.values()]
        table.add_row(
            f"{r.training}/{r.name}",
            r.key[:8],
            *("\n".join(s[i] for s in scores) for i in range(3)),
            f"{r.card['counts']['train']:,} rows of {r.dataset['key'][:8]}",
            "-" if r.created is None else f"{r.created:%Y-%m-%d %H:%M}",
            _place(r, short=True),
        )
    return table


def _scores(target: dict[str, Any], method: str = "net") -> tuple[str, str, str]:
    metrics, unit = target["metrics"][method], target["unit"]
    covered = target["interval"]["coverage"] if method == "net" else None
    return (
        f"{metrics['r2']:.2f} [{metrics['r2_low']:.2f}, {metrics['r2_high']:.2f}]",
        f"{metrics['mae']:.3g}" + ("" if unit == "1" else f" {unit}"),
        "-" if covered is None else f"{covered:.0%}",
    )


def _facts(r: ModelRecord) -> Table:
    from rich.table import Table

    method, counts, takes = r.dataset["method"], r.card["counts"], r.card["inputs"]
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_row("model", f"{r.training}/{r.name}  {r.key}")
    for name, target in r.targets.items():
        facts.add_row(name, f"{target['meaning']} ({target['unit']})")
    facts.add_row(
        "dataset",
        f"{r.dataset['key']}  {r.dataset['source']}: {counts['train']} train, {counts['validation']} validation, "
        f"{counts['test']} test",
    )
    facts.add_row(
        "spectra",
        f"{method['engine']} {method['element']} {method['edge']}, parameters {method['parameters_key'][:8]}; "
        f"{takes['energies']}; {takes['unit']}; sigma {takes['broadening_sigma_eV']} eV",
    )
    net = r.spec["network"]
    facts.add_row(
        "net",
        f"{'-'.join(map(str, net['widths']))}, {net['members']} members, dropout {net['dropout']}, "
        f"seed {r.spec['seed']}",
    )
    facts.add_row("interval", str(r.card["interval"]))
    facts.add_row("code", ", ".join(f"{k} {v}" for k, v in r.code.items()))
    facts.add_row("registered", "no" if r.created is None else f"{r.created:%Y-%m-%d %H:%M} UTC")
    facts.add_row("folder", _place(r))
    return facts


def _methods(r: ModelRecord) -> Table:
    from rich.table import Table

    table = Table(title=f"on {r.card['counts']['test']} test rows", title_justify="left")
    for heading in ("target", "method", "R² [5-95 %]", "mean error", "90 % covers"):
        table.add_column(heading, justify="left" if heading in ("target", "method") else "right")
    for name, target in r.targets.items():
        best = max(target["metrics"], key=lambda m: target["metrics"][m]["r2"])
        for method in target["metrics"]:
            style = "bold" if method == best else None
            table.add_row(name if method == "net" else "", method, *_scores(target, method), style=style)
    return table


def _compared(found: Comparison) -> Table:
    from rich.table import Table

    table = Table()
    for heading in (
        "target",
        "model",
        "key",
        "R² [5-95 %]",
        "mean error",
        "90 % covers",
        "best baseline",
        "trained on",
    ):
        table.add_column(
            heading, justify="right" if heading[0] in "R9" or heading == "mean error" else "left"
        )
    for target in found.targets:
        scores = [r.targets[target]["metrics"]["net"]["r2"] for r in found.records]
        for i, r in enumerate(found.records):
            result = r.targets[target]
            baseline = max(
                (m for m in result["metrics"] if m != "net"), key=lambda m: result["metrics"][m]["r2"]
            )
            best = result["metrics"][baseline]["r2"]
            table.add_row(
                target if i == 0 else "",
                f"{r.training}/{r.name}",
                r.key[:8],
                *_scores(result),
                f"{baseline} {best:.2f}",
                f"{r.card['counts']['train']:,} rows of {r.dataset['key'][:8]}",
                style="bold" if found.same_test and scores[i] == max(scores) else None,
            )
    return table
