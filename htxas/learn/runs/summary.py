"""What a training says at its end: one table, one JSON file, and plainly where a baseline wins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from htxas.learn.data.dataset import Dataset
from htxas.learn.data.recipe import ModelKind, Rows
from htxas.learn.nets.baselines import BASELINES
from htxas.learn.runs.spec import folder_name

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["METRICS", "columns", "headline", "rich_table", "verdict", "write_summary"]

METRICS = "metrics.json"
Cards = Mapping[str, Mapping[str, Any]]
_LABELS = {name: label for name, label in BASELINES.items() if name != "mean"}


def columns(kinds: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (heading, model kind, method) of each column: the mean once, then baselines and net by input set."""
    found = [("mean", kinds[0], "mean")]
    for kind in kinds:
        found += [(f"{label}-{kind}", kind, method) for method, label in _LABELS.items()]
        found.append((f"Model-{kind}", kind, "net"))
    return found


def _layout(cards: Cards) -> tuple[list[str], list[str]]:
    targets = list(dict.fromkeys(t for c in cards.values() for t in c["targets"]))
    present = {c["spec"]["kind"] for c in cards.values()}
    return targets, [k.value for k in ModelKind if k.value in present]


def _result(cards: Cards, target: str, kind: str) -> Mapping[str, Any] | None:
    found = (c for c in cards.values() if target in c["targets"] and c["spec"]["kind"] == kind)
    card = next(found, None)
    return None if card is None else card["targets"][target]


def _cell(cards: Cards, target: str, kind: str, method: str) -> Mapping[str, float] | None:
    result = _result(cards, target, kind)
    return None if result is None else result["metrics"][method]


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
    """Return the table for a terminal: R^2 on test rows, mean absolute error below it; of the baselines, the best."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    targets, kinds = _layout(cards)
    counts = dataset.card["counts"]
    table = Table(
        title=f"R² (mean absolute error) on {counts['test']} test {_rows(dataset)}",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),  # all columns in the 80 of a plain terminal
        collapse_padding=True,
    )
    table.add_column("target", no_wrap=True)
    for kind in kinds:
        for heading in ("best\nbaseline", "Model", "90%\nholds"):
            table.add_column(
                f"{heading}-{kind}" if heading == "Model" else heading, justify="right", no_wrap=True
            )
    for target in targets:
        unit = _unit(cards, target)
        best = _best(cards, target, columns(kinds))
        cells = []
        for kind in kinds:
            result = _result(cards, target, kind)
            if result is None:
                cells += ["-", "-", "-"]
                continue
            baseline = max(BASELINES, key=lambda m: result["metrics"][m]["r2"])
            for method in (baseline, "net"):
                value = result["metrics"][method]
                style = "bold" if (kind, method) == best else "none"
                r2, mae = f"{value['r2']:.2f}", f"({value['mae']:.2g})"
                text = f"{r2}\n{mae}" if method == "net" else f"{r2} {mae}\n{BASELINES[method]}"
                cells.append(f"[{style}]{text}[/]")
            cells.append(_coverage(result))
        table.add_row(target if unit == "1" else f"{target}\n({unit})", *cells)
    return table


def _rows(dataset: Dataset) -> str:
    return "sites" if dataset.recipe.rows is Rows.SITE else "molecules"


def _coverage(result: Mapping[str, Any]) -> str:
    coverage = result["interval"]["coverage"]
    return "-" if coverage is None else f"{coverage:.0%}"


def _unit(cards: Cards, target: str) -> str:
    return next(str(c["targets"][target]["unit"]) for c in cards.values() if target in c["targets"])


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
        f"R² (mean absolute error) on test {_rows(dataset)}; for nets also the 5-95% bootstrap range of R² over "
        "molecules, and how many of these the calibrated 90% interval covers. "
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
                    result = _result(cards, target, kind)
                    text += "" if result is None else f", covers {_coverage(result)}"
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
            f"{target}-{card['spec']['kind']}": {
                "unit": result["unit"],
                "counts": card["counts"],
                **{method: dict(values) for method, values in result["metrics"].items()},
                "interval": result["interval"],
            }
            for card in cards.values()
            for target, result in card["targets"].items()
        },
        "verdict": verdict(cards),
    }
    (out_dir / METRICS).write_text(json.dumps(document, indent=1) + "\n")
    (out_dir / "table.md").write_text(markdown(cards, dataset))
    return document
