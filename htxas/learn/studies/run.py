"""A study from end to end: dataset, runs, and a folder with table, plots, numbers and words."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htxas.learn.data.dataset import Dataset
from htxas.learn.runs.parallel import Report as OnDone
from htxas.learn.runs.parallel import run_all
from htxas.learn.runs.queue_cluster import QueueWorkers
from htxas.learn.runs.spec import folder_name
from htxas.learn.studies.config import StudyPlan
from htxas.learn.studies.results import Results
from htxas.learn.studies.study import Planned, Report

__all__ = ["RUNS", "Studied", "run_study"]

RUNS = "runs"


@dataclass(frozen=True, slots=True, eq=False)
class Studied:
    """What a study left behind.

    Attributes
    ----------
    report
        Tables, figures, words.
    document
        Content of ``results.json``.
    out_dir
        Folder with ``table.md``, ``summary.md``, ``results.json``, figures and ``runs/``.
    """

    report: Report
    document: dict[str, Any]
    out_dir: Path


def run_study(
    plan: StudyPlan,
    dataset: Dataset,
    planned: Sequence[Planned],
    out_dir: Path,
    *,
    workers: int | None,
    scheduler: str | None = None,
    queue: QueueWorkers | None = None,
    on_done: OnDone | None = None,
) -> Studied:
    """Do the runs that are not done, and write the report.

    Parameters
    ----------
    planned
        Of ``plan.study``.
    out_dir
        Folder of the study.
    workers, scheduler, queue, on_done
        See :func:`htxas.learn.runs.parallel.run_all`.

    Raises
    ------
    DatasetError
        If runs failed; the others are finished and kept.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    cards = run_all(
        dataset.path, [p.spec for p in planned], out_dir / RUNS,
        workers=workers, scheduler=scheduler, queue=queue, on_done=on_done,
    )  # fmt: skip
    results = Results(planned, [cards[p.spec.key] for p in planned], out_dir / RUNS)
    report = plan.study.report(dataset, results)
    document = _document(plan, dataset, results, report)
    _write(out_dir, plan, report, document)
    return Studied(report, document, out_dir)


def _document(plan: StudyPlan, dataset: Dataset, results: Results, report: Report) -> dict[str, Any]:
    return {
        "study": plan.kind,
        "name": plan.name,
        "summary": " ".join(report.words),
        "dataset": {
            "key": dataset.key,
            "path": str(dataset.path.resolve()),
            "source": dataset.card["source"],
            "counts": dataset.card["counts"],
        },
        "cells": [cell.to_dict() for cell in report.cells],
        "runs": {
            card["key"]: {
                "folder": f"{RUNS}/{folder_name(card['name'], card['key'])}",
                **plan_.axes,
                "rows": card["counts"],
                "molecules": card["molecules"],
                "metrics": {name: target["metrics"] for name, target in card["targets"].items()},
                "interval": {name: target["interval"] for name, target in card["targets"].items()},
            }
            for plan_, card in zip(results.planned, results.cards, strict=True)
        },
    }


def _write(out_dir: Path, plan: StudyPlan, report: Report, document: dict[str, Any]) -> None:
    figures = "".join(f"\n![{name}]({name}.png)\n" for name in report.figures)
    paragraph = " ".join(report.words) + "\n"
    tables = "\n".join(table.markdown() for table in report.tables)
    _replace(out_dir / "summary.md", paragraph)
    _replace(out_dir / "table.md", f"# {plan.name}\n\n{paragraph}\n{tables}{figures}")
    _replace(out_dir / "results.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    for name, figure in report.figures.items():
        figure.savefig(out_dir / f"{name}.png", metadata={"Software": "htxas"})


def _replace(path: Path, text: str) -> None:
    """Write a file in one step: a reader sees the old one or the new one."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(scratch).chmod(0o644)
    Path(scratch).replace(path)
