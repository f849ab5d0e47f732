"""The package as shipped: version, assets, and a wheel that works away from the checkout."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import htxas
from htxas import assets
from htxas.errors import InternalError, NotFound

ROOT = Path(__file__).resolve().parents[1]


def test_version_is_in_the_changelog() -> None:
    assert re.search(rf"^## \[?{re.escape(htxas.__version__)}\]?", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        d for extra in project["optional-dependencies"].values() for d in extra
    ]
    names = {re.split(r"[<>=;\s\[]", w, maxsplit=1)[0] for w in wanted}
    pins = {
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    assert {plain(n) for n in names} <= {plain(p) for p in pins}


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=;\[\s]", d, maxsplit=1)[0].lower() for d in project["dependencies"]}
    used = {
        name.partition(".")[0]
        for path in (ROOT / "htxas").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }
    third = used - sys.stdlib_module_names - {"htxas", ""}
    distributions = metadata.packages_distributions()
    optional = {"fiftyone", "gpaw"}  # the localdb extra, looked for and not needed; in the user's own Python
    optional |= {
        "onnx",
        "onnxruntime",
        "onnxscript",
    }  # the onnx extra, asked for by the command that needs it
    undeclared = {
        name: distributions.get(name)
        for name in third - optional
        if not {d.lower().replace("_", "-") for d in distributions.get(name, [])} & declared
    }
    assert undeclared == {}


def test_constraints_pin_exactly_and_torch_without_a_build() -> None:
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", x) for x in lines)
    assert "torch==2.13.0" in lines


def test_assets_of_the_checkout_are_found() -> None:
    assert assets.share("workflows") == ROOT / "workflows"
    assert assets.workflow("quickstart/campaign.yaml").is_file()


def test_a_missing_asset_names_the_nearest() -> None:
    with pytest.raises(NotFound, match=r"did you mean 'quickstart/campaign\.yaml'"):
        assets.workflow("quickstart/campagn.yaml")


def test_an_asset_is_never_outside_its_folder() -> None:
    with pytest.raises(NotFound):
        assets.template("../pyproject.toml")


def test_an_unknown_kind_of_asset_is_our_bug() -> None:
    with pytest.raises(InternalError):
        assets.share("deploy")


@pytest.mark.parametrize("folder", ["workflows", "templates", "deploy"])
def test_every_shipped_file_is_in_its_readme(folder: str) -> None:
    readme = (ROOT / folder / "README.md").read_text()
    files = (p for p in (ROOT / folder).rglob("*") if p.is_file() and p.name != "README.md")
    # one line of the table stands for the many files of a geometries folder
    names = [p.relative_to(ROOT / folder).as_posix() for p in files if p.parent.name != "geometries"]
    assert [n for n in names if n not in readme] == []


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True, timeout=300)
    (wheel,) = tmp_path.glob("htxas-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "htxas/_share/workflows/quickstart/campaign.yaml" in names
    assert "htxas/_share/templates/README.md" in names
    assert "htxas/py.typed" in names
    assert not any(n.startswith(("deploy/", "tests/")) for n in names)

    subprocess.run(
        [*pip, "install", "--no-deps", "--no-compile", "--target", target, wheel], check=True, timeout=300
    )
    # -P and the path alone: what is found is the wheel, not an editable install beside it.
    env = {**os.environ, "PYTHONPATH": str(target)}
    out = subprocess.run(
        [sys.executable, "-c", "import htxas.assets as a; print(a.workflow('quickstart/campaign.yaml'))"],
        check=True, capture_output=True, text=True, cwd=tmp_path, env=env,
    ).stdout  # fmt: skip
    assert Path(out.strip()).is_relative_to(target)
    done = subprocess.run(
        [sys.executable, "-m", "htxas.cli.main", "--version"],
        check=True, capture_output=True, text=True, cwd=tmp_path, env=env,
    )  # fmt: skip
    assert htxas.__version__ in done.stdout
    script = (target / "bin" / "htxas").read_text()
    assert "htxas.cli.main" in script
