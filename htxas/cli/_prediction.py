"""How a prediction is shown: as text, as a table of rows, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from htxas.learn.data.dataset import Dataset
    from htxas.learn.serve.answers import Estimate, Prediction
    from htxas.learn.serve.formats.measured import MeasuredSpectrum
    from htxas.learn.serve.model import Model
    from htxas.learn.serve.neighbours import Neighbour
    from htxas.store.store import Store

__all__ = ["document", "print_prediction", "print_rows"]


def document(
    model: Model,
    measured: MeasuredSpectrum | None,
    dataset: Dataset | str,
    store: Store | str,
    predictions: list[Prediction],
    near: dict[str, list[Neighbour]],
) -> dict[str, Any]:
    """Return everything as JSON-able values; ``dataset`` and ``store`` are the reason, where they are not there."""
    gone = isinstance(dataset, str)
    return {
        "model": {
            "name": model.name,
            "key": model.key,
            "folder": str(model.path),
            "code": model.card["code"],
        },
        "dataset": {
            "key": model.card["dataset"]["key"],
            "source": model.card["dataset"]["source"],
            "folder": None if gone else str(dataset.path),  # type: ignore[union-attr]
            "gone": dataset if gone else None,
        },
        "database": store if isinstance(store, str) else "asked",
        "spectrum": None
        if measured is None
        else {
            "file": str(measured.path),
            "format": measured.format,
            "points": len(measured.energies_eV),
            "from_eV": float(measured.energies_eV[0]),
            "to_eV": float(measured.energies_eV[-1]),
            "energy_unit": measured.energy_unit,
            "intensity": measured.column,
            "scale": measured.scale.value,
            "element": measured.element,
            "edge": measured.edge,
            "edge_eV": measured.edge_eV,
            "told": dict(measured.told),
        },
        "predictions": [
            p.to_dict() | ({"neighbours": [n.to_dict() for n in near[p.name]]} if p.name in near else {})
            for p in predictions
        ],
    }


def print_prediction(
    model: Model,
    measured: MeasuredSpectrum | None,
    dataset: Dataset | str,
    store: Store | str,
    predictions: list[Prediction],
    near: dict[str, list[Neighbour]],
) -> None:
    """Print predictions with every step of the preparation, the domain, and the nearest training spectra."""
    from htxas.report.terminal import console

    out = console()

    def line(text: str = "") -> None:
        out.print(text, soft_wrap=True)

    if measured is not None:
        told = " ".join(v for v in (measured.element, measured.edge) if v)
        line(
            f"{measured.path}: {measured.format}{', ' + told if told else ''}, {len(measured.energies_eV)} points from "
            f"{measured.energies_eV[0]:.2f} to {measured.energies_eV[-1]:.2f} eV (in {measured.energy_unit}), "
            f"intensity: {measured.column} ({measured.scale.value})"
        )
        for name, text in measured.told.items():
            line(f"  {name:<12}{text}")
    for p in predictions:
        for step in () if p.prepared is None else p.prepared.steps:
            line(f"  {step.name:<12}{step.text}")
        for e in p.estimates:
            line(f"{p.name}: {_said(e)}; mean error on test molecules {e.test_mae:.2g}")
        for onset, estimates in p.if_onset.items():
            values = ", ".join(f"{e.target} {e.value:.4g}{_unit(e.unit)}" for e in estimates)
            if values:
                line(f"  with the onset at {onset:.2f} eV: {values}")
        if p.curve is not None:
            c = p.curve
            top = int(c.value.argmax())
            line(
                f"{p.name}: {c.target}, {len(c.value)} points from {c.energies_eV[0]:g} to {c.energies_eV[-1]:.4g} eV "
                f"({c.zero}), largest {c.value[top]:.3g} {c.unit} at {c.energies_eV[top]:.1f} eV"
                + (
                    ""
                    if c.low is None or c.high is None
                    else f"; 90 % band on average +-{(c.high - c.low).mean() / 2:.2g}"
                )
            )
        line(f"  {p.familiarity.verdict}")
        for note in p.notes:
            line(f"  note: {note}")
        if near.get(p.name):
            out.print(_neighbour_table(model, near[p.name]))
    key, source = model.card["dataset"]["key"], model.card["dataset"]["source"]
    line(f"model {model.name} {model.key[:12]}, trained on dataset {key[:12]} ({source})")
    if isinstance(dataset, str):
        line(f"nearest training spectra: {dataset}")
    if isinstance(store, str):
        line(f"sites of the training spectra: {store}")
    elif any(n.sites for found in near.values() for n in found):
        line("where a training spectrum comes from: htxas site show SITE")


def _said(e: Estimate) -> str:
    unit = _unit(e.unit)
    if e.low is None or e.high is None:
        return f"{e.target} {e.value:.4g}{unit}, no interval: too few validation molecules"
    return f"{e.target} {e.value:.4g}{unit}, 90 % interval {e.low:.4g} to {e.high:.4g}{unit}"


def _unit(unit: str) -> str:
    return "" if unit == "1" else f" {unit}"


def _neighbour_table(model: Model, near: list[Neighbour]) -> Any:
    from rich.table import Table

    table = Table(title="nearest training spectra", title_justify="left")
    for heading in ("name", "molecule"):
        table.add_column(heading)
    targets = {} if model.is_curve else model.targets
    for name, target in targets.items():
        table.add_column(name if target["unit"] == "1" else f"{name} ({target['unit']})", justify="right")
    table.add_column("distance", justify="right")
    table.add_column("sites")
    for n in near:
        sites = " ".join(s.key[:8] for s in n.sites[:4]) + (" ..." if len(n.sites) > 4 else "")
        values = [f"{n.true[t]:.4g}" for t in targets]
        table.add_row(n.name, n.molecule or "-", *values, f"{n.distance:.2f}", sites or "-")
    return table


def print_rows(model: Model, predictions: list[Prediction]) -> None:
    """Print a table with a line per row of a dataset."""
    from rich.table import Table

    from htxas.report.terminal import console

    out = console()
    table = Table(title=f"{model.name}, by dataset row")
    table.add_column("name")
    if model.is_curve:
        for heading in ("mean square error", "inside 90 % band"):
            table.add_column(heading, justify="right")
    for name, target in ({} if model.is_curve else model.targets).items():
        table.add_column(name if target["unit"] == "1" else f"{name} ({target['unit']})", justify="right")
        table.add_column("90 % interval", justify="right")
        table.add_column("computed", justify="right")
    table.add_column("domain")
    for p in predictions:
        cells = []
        for e in p.estimates:
            span = "-" if e.low is None or e.high is None else f"{e.low:.4g} to {e.high:.4g}"
            cells += [f"{e.value:.4g}", span, "-" if e.true is None else f"{e.true:.4g}"]
        if p.curve is not None:
            c = p.curve
            known = c.true is not None and c.low is not None and c.high is not None
            cells.append("-" if c.true is None else f"{((c.value - c.true) ** 2).mean():.3g}")
            within = ((c.true >= c.low) & (c.true <= c.high)).mean() if known else None  # type: ignore[operator]
            cells.append("-" if within is None else f"{within:.0%}")
        table.add_row(p.name, *cells, "inside" if p.familiarity.inside else "OUTSIDE")
    out.print(table)
