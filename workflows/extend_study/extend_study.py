"""Does `htxas campaign extend` beat random choice? Learning curves on a dataset that is computed already.

    python workflows/extend_study/extend_study.py [DATASET.h5] [--repeats 10] [--start 100] [--step 50] [--out FOLDER]

Without a file: the reference dataset. Writes curves.json, table.md and curves.png into FOLDER.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.progress import Progress

from htxas.assets import workflow
from htxas.learn.choose.known import gather
from htxas.learn.choose.strategies import Strategy
from htxas.learn.choose.study import Plan, run_study, study_targets, write_report
from htxas.learn.data.recipe import Window
from htxas.learn.data.source import FileSource
from htxas.learn.nets.device import deterministic


def main() -> None:
    """Run the study."""
    default = Plan()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--start", type=int, default=default.start)
    parser.add_argument("--step", type=int, default=default.step)
    parser.add_argument("--steps", type=int, help="default: as often as they last, at most 8")
    parser.add_argument("--test", type=float, default=default.test, help="fraction of the molecules")
    parser.add_argument("--repeats", type=int, default=default.repeats)
    parser.add_argument("--property", action="append", dest="properties")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--out", type=Path, default=Path("extend_study"))
    a = parser.parse_args()
    properties = tuple(a.properties or default.properties)
    plan = Plan(a.start, a.step, a.steps, a.test, a.repeats, properties, a.seed)
    known = gather(
        [FileSource(a.dataset or workflow("reference/reference.h5"))], study_targets(properties), Window()
    )
    with Progress(transient=True) as progress, deterministic():
        task = progress.add_task("learning curves", total=plan.repeats * len(Strategy))
        curves = run_study(known, plan, lambda: progress.advance(task))
    print(write_report(curves, a.out))


if __name__ == "__main__":
    main()
