"""What ``pw.x``, ``projwfc.x``, ``pp.x`` and ``xspectra.x`` left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import Convergence
from htxas.domain.units import HARTREE_EV

__all__ = [
    "VACUUM_POINTS",
    "Bands",
    "OutputError",
    "read_bands",
    "read_projections",
    "read_vacuum",
    "refusal",
    "wrong_pseudo",
]

FloatArray = npt.NDArray[np.float64]
_RYDBERG_EV = HARTREE_EV / 2
VACUUM_POINTS = 24  # along each edge of a box
_READ_FROM = re.compile(
    r"PseudoPot\. #\s*\d+ for (\S+)\s+read from file:\s*(\S+)\s+MD5 check sum:\s*([0-9a-f]{32})"
)
_ROUTINE = re.compile(r"Error in routine\s+(\S+) \(\s*(-?\d+)\s*\):\s*\n\s*(.+)")
_STATE = re.compile(r"state #\s*(\d+): atom\s+(\d+) \((\S+)\s*\), wfc\s+\d+ \(l=(\d)")


class OutputError(ValueError):
    """A file is not there, cut short, or not what it should be."""


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """A self-consistent state.

    Attributes
    ----------
    convergence
        As ``pw.x`` states it.
    energy_eV
        Total energy without the entropy of occupations, eV.
    electrons
        In the cell.
    energies_eV, occupations
        Of each k point, shape (k, bands); occupations from 0 to 1.
    k_weights
        Shape (k,), adding up to 1.
    gamma_only
        Whether wave functions are real and half of them is stored.
    version
        Of the code.
    iterations
        Of self-consistency.
    """

    convergence: Convergence
    energy_eV: float
    electrons: float
    energies_eV: FloatArray
    occupations: FloatArray
    k_weights: FloatArray
    gamma_only: bool
    version: str
    iterations: int

    def frontier_eV(self, pairs: int) -> tuple[float, float]:
        """Return the highest of the lowest ``pairs`` levels of all k points, and the lowest of the others, eV.

        Which these are, occupations do not say: the electron a hole has set free fills levels of the conduction band at
        some k points.
        """
        if not 0 < pairs < self.energies_eV.shape[1]:
            raise OutputError(f"pw.xml has {self.energies_eV.shape[1]} levels, {pairs} of them full")
        return float(self.energies_eV[:, :pairs].max()), float(self.energies_eV[:, pairs:].min())


def _parse(path: Path) -> ElementTree.Element:
    # Written by the user's own code in this directory; expat bounds the expansion of entities.
    return ElementTree.parse(path).getroot()  # noqa: S314


def read_bands(folder: Path) -> Bands:
    """Return the state ``pw.x`` describes in ``pw.xml``.

    Raises
    ------
    OutputError
        It is not there, cut short, or lacks something.
    """
    try:
        root = _parse(folder / "pw.xml")
    except FileNotFoundError:
        raise OutputError("there is no pw.xml") from None
    except ElementTree.ParseError as error:
        raise OutputError(f"pw.xml is cut short: {error}") from None
    told = root.find("output")
    if told is None:
        raise OutputError("pw.xml has no output")
    try:
        creator = root.find("general_info/creator")
        achieved = told.findtext("convergence_info/scf_conv/convergence_achieved")
        structure = told.find("band_structure")
        assert structure is not None
        points = structure.findall("ks_energies")
        weights = np.array([_weight(p) for p in points])
        entropy = float(told.findtext("total_energy/demet") or 0.0)
        bands = Bands(
            convergence=_CONVERGENCE.get((achieved or "").strip(), Convergence.UNKNOWN),
            energy_eV=(float(_text(told, "total_energy/etot")) - entropy) * HARTREE_EV,
            electrons=float(_text(structure, "nelec")),
            energies_eV=np.array([_numbers(p, "eigenvalues") for p in points]) * HARTREE_EV,
            occupations=np.array([_numbers(p, "occupations") for p in points]),
            k_weights=weights / weights.sum(),
            gamma_only=_text(told, "basis_set/gamma_only").strip() == "true",
            version=creator.attrib.get("VERSION", "") if creator is not None else "",
            iterations=int(_text(told, "convergence_info/scf_conv/n_scf_steps")),
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise OutputError(f"pw.xml lacks something: {error}") from None
    if bands.energies_eV.ndim != 2 or bands.energies_eV.shape != bands.occupations.shape:
        raise OutputError("pw.xml: levels and occupations do not fit")
    return bands


_CONVERGENCE = {"true": Convergence.CONVERGED, "false": Convergence.UNCONVERGED}


def _weight(point: ElementTree.Element) -> float:
    found = point.find("k_point")
    if found is None:
        raise KeyError("k_point")
    return float(found.attrib["weight"])


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if text is None:
        raise KeyError(path)
    return text


def _numbers(node: ElementTree.Element, name: str) -> list[float]:
    return [float(x) for x in _text(node, name).split()]


def wrong_pseudo(output: str, folder: str, ours: Mapping[str, str]) -> str | None:
    """Return what is wrong with the pseudopotentials ``pw.x`` says it read, or None.

    A file that is not there makes it look elsewhere, in silence: it must have read ours as they were made.

    Parameters
    ----------
    output
        What ``pw.x`` printed.
    folder
        Where it ran, as it called it.
    ours
        MD5 sum of each file that was made, by name.
    """
    read = _READ_FROM.findall(output)
    if not read:
        return "pw.x names no pseudopotential it read"
    for label, name, digest in read:
        path = Path(name)
        if path.parent not in (Path(), Path(folder)) or ours.get(path.name) != digest:
            return f"pw.x read {name} for {label}, which is not what was made for this run"
    return None


def refusal(output: str) -> str | None:
    """Return what a program says of the error that ended it, or None."""
    found = _ROUTINE.search(output)
    return None if found is None else f"{found[1]}: {found[3].strip()}"


def read_projections(folder: Path, output: str, atoms: int) -> FloatArray:
    """Return the shares of each level on each atom, shape (k, bands, atoms, 3) for s, p, d, from ``projwfc.x``.

    Raises
    ------
    OutputError
        The file of projections is not there, or does not fit what ``projwfc.x`` printed.
    """
    path = folder / "pw.save" / "atomic_proj.xml"
    states = [(int(n), int(atom) - 1, int(momentum)) for n, atom, _, momentum in _STATE.findall(output)]
    try:
        root = _parse(path)
    except FileNotFoundError:
        raise OutputError("there is no atomic_proj.xml") from None
    except ElementTree.ParseError as error:
        raise OutputError(f"atomic_proj.xml is cut short: {error}") from None
    eigenstates = root.find("EIGENSTATES")
    points = [] if eigenstates is None else eigenstates.findall("PROJS")
    if not states or not points:
        raise OutputError("atomic_proj.xml or the output of projwfc.x names no states")
    shares = []
    for point in points:
        waves = point.findall("ATOMIC_WFC")
        if len(waves) != len(states):
            raise OutputError(
                f"atomic_proj.xml has {len(waves)} atomic functions, projwfc.x names {len(states)}"
            )
        weight: FloatArray | None = None
        for wave, (_, atom, momentum) in zip(waves, states, strict=True):
            numbers = np.array((wave.text or "").split(), dtype=np.float64).reshape(-1, 2)
            if momentum > 2:
                raise OutputError("a projection on an f function")
            if weight is None:
                weight = np.zeros((len(numbers), atoms, 3))
            weight[:, atom, momentum] += (numbers**2).sum(axis=1)
        assert weight is not None
        shares.append(weight)
    return np.array(shares)


def read_vacuum(folder: Path) -> tuple[float, float]:
    """Return the potential along the edges of a molecule's box and its spread there, eV.

    Raises
    ------
    OutputError
        One of the files is not there.
    """
    edges = []
    for axis in "xyz":
        name = f"vacuum-{axis}.dat"
        try:
            text = (folder / name).read_text()
            column = [float(line.split()[1]) for line in text.splitlines()]
        except FileNotFoundError:
            raise OutputError(f"there is no {name}") from None
        except (ValueError, IndexError):
            raise OutputError(f"{name} is no table of the potential") from None
        if len(column) != VACUUM_POINTS or not text.endswith("\n"):
            raise OutputError(f"{name} is cut short")
        edges.append(np.array(column))
    values = np.concatenate(edges) * _RYDBERG_EV
    return float(values.mean()), float(np.ptp(values))
