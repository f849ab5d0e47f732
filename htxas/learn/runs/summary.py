"""What a training says at its end: one table, one JSON file, and plainly where a baseline wins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from htxas.learn.data.dataset import Dataset
from htxas.learn.data.recipe import ModelKind
from htxas.learn.runs.spec import folder_name

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["METRICS", "columns", "headline", "rich_table", "verdict", "write_summary"]

METRICS = "metrics.json"
Cards = Mapping[str, Mapping[str, Any]]
_LABELS = {"ridge": "ridge", "knn": "kNN"}


def columns(kinds: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (heading, model kind, method) of each column: the mean once, then baselines and net by input set."""
    found = [("mean", kinds[0], "mean")]
    for kind in kinds:
        found += [(f"{label}-{kind}", kind, method) for method, label in _LABELS.items()]
        found.append((f"Model-{kind}", kind, "net"))
    return found


def _layout(cards: Cards) -> tuple[list[str], list[str]]:
    targets = list(dict.fromkeys(c["spec"]["targets"][0] for c in cards.values()))
    present = {c["spec"]["kind"] for c in cards.values()}
    return targets, [k.value for k in ModelKind if k.value in present]


def _cell(cards: Cards, target: str, kind: str, method: str) -> Mapping[str, float] | None:
    card = cards.get(f"{target}-{kind}")
    return None if card is None else card["metrics"][method]


def headline(dataset: Dataset) -> str:
    """Return one line on the dataset: source, rows per side, hash."""
    n = dataset.card["counts"]
    what = f"{dataset.recipe.rows.value}s"
    left = "".join(f", {count} left out ({reason})" for reason, count in n["left_out"].items())
    return (
        f"{dataset.card['source']}: {n['rows']} {what} = {n['train']} train + {n['validation']} validation + "
        f"{n['test']} test{left}; dataset {dataset.key[:12]}"
    )


def rich_table(cards: Cards, dataset: Dataset) -> Table:
    """Return the table for a terminal: R^2 on test molecules, mean absolute error below it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    targets, kinds = _layout(cards)
    heads = columns(kinds)
    table = Table(
        title=f"R² (mean absolute error) on {dataset.card['counts']['test']} test molecules",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),  # all columns in the 80 of a plain terminal
        collapse_padding=True,
    )
    table.add_column("target", no_wrap=True)
    for heading, _, _ in heads:
        table.add_column(heading.replace("-", "\n"), justify="right", no_wrap=True)
    for target in targets:
        best = _best(cards, target, heads)
        unit = _unit(cards, target)
        cells = []
        for _, kind, method in heads:
            value = _cell(cards, target, kind, method)
            style = "bold" if (kind, method) == best else "none"
            text = "-" if value is None else f"{value['r2']:.2f}\n({value['mae']:.2g})"
            cells.append(f"[{style}]{text}[/]")
        table.add_row(target if unit == "1" else f"{target}\n({unit})", *cells)
    return table


def _unit(cards: Cards, target: str) -> str:
    return next(str(c["target"]["unit"]) for c in cards.values() if c["spec"]["targets"][0] == target)


def _best(cards: Cards, target: str, heads: Sequence[tuple[str, str, str]]) -> tuple[str, str]:
    scored = {(k, m): v["r2"] for _, k, m in heads if (v := _cell(cards, target, k, m)) is not None}
    return max(scored, key=lambda pair: scored[pair])


def verdict(cards: Cards) -> list[str]:
    """Return one sentence per model kind: for which targets a baseline on the same inputs beats the net, by R^2."""
    targets, kinds = _layout(cards)
    lines = []
    for kind in kinds:
        lost = []
        for target in targets:
            values = {m: v["r2"] for m in ("mean", *_LABELS, "net") if (v := _cell(cards, target, kind, m))}
            if values and (winner := max(values, key=lambda m: values[m])) != "net":
                lost.append(f"{target} ({_LABELS.get(winner, winner)})")
        text = (
            "no baseline on the same inputs beats it"
            if not lost
            else "a baseline wins for " + ", ".join(lost)
        )
        lines.append(f"Model-{kind}: {text}.")
    return lines


def markdown(cards: Cards, dataset: Dataset) -> str:
    """Return the table as Markdown, with the 90% bootstrap range of each net's R^2."""
    targets, kinds = _layout(cards)
    heads = columns(kinds)
    lines = [
        headline(dataset) + ".",
        "",
        "R² (mean absolute error) on test molecules; for nets also the 5-95% bootstrap range of R² over them. "
        "A: spectrum; B: spectrum and N/C, O/C, F/C. All fitted on the training split, settings chosen on validation.",
        "",
        "| target | unit | " + " | ".join(h for h, _, _ in heads) + " |",
        "|---|---|" + "---|" * len(heads),
    ]
    for target in targets:
        best = _best(cards, target, heads)
        cells = []
        for _, kind, method in heads:
            value = _cell(cards, target, kind, method)
            text = "-"
            if value is not None:
                text = f"{value['r2']:.2f} ({value['mae']:.3g})"
                text = f"**{text}**" if (kind, method) == best else text
                if method == "net":
                    text += f" [{value['r2_low']:.2f}, {value['r2_high']:.2f}]"
            cells.append(text)
        lines.append(f"| {target} | {_unit(cards, target)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *verdict(cards), ""])


def write_summary(out_dir: Path, cards: Cards, dataset: Dataset) -> dict[str, Any]:
    """Write ``metrics.json`` and ``table.md`` into ``out_dir``; return the content of the former."""
    document = {
        "dataset": {
            "key": dataset.key,
            "path": str(dataset.path.resolve()),
            "source": dataset.card["source"],
            "counts": dataset.card["counts"],
        },
        "models": {name: folder_name(name, card["key"]) for name, card in cards.items()},
        "metrics": {
            name: {
                "unit": card["target"]["unit"],
                "counts": card["counts"],
                **{method: dict(values) for method, values in card["metrics"].items()},
            }
            for name, card in cards.items()
        },
        "verdict": verdict(cards),
    }
    (out_dir / METRICS).write_text(json.dumps(document, indent=1) + "\n")
    (out_dir / "table.md").write_text(markdown(cards, dataset))
    return document
