"""The recipe number stands for the algorithm in every identity: whoever changes the algorithm is asked here."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import htxas.engines.pyscf as package
from htxas.engines.pyscf.parameters import RECIPE

PHYSICS = ("absolute", "corehole", "final_states", "ground", "molecule", "scf", "xcgrid")
KNOWN = (1, "a2203c947b5e2bb8")


def _code(path: Path) -> str:
    """The syntax tree without docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def test_the_algorithm_is_the_one_of_its_recipe_number() -> None:
    folder = Path(package.__file__).parent
    text = "\n".join(_code(folder / f"{name}.py") for name in PHYSICS)
    found = (RECIPE, hashlib.sha256(text.encode()).hexdigest()[:16])
    assert found == KNOWN, (
        "the code that makes the numbers has changed. If any result changes by more than its convergence, raise RECIPE "
        f"in parameters.py (calculations get new identities); then write {found} here."
    )
