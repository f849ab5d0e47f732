"""Magnetic moments of the atoms of a file: collinear ones in Bohr magnetons, or a refusal.

Without spin-orbit coupling energies and spectra do not depend on the common axis of the moments, only on their sizes
and signs along it. Vectors along one axis are therefore as good as numbers: the axis points where its largest component
is positive, so a moment along +z is positive. Vectors along several axes are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from htxas.domain.structure import MOMENT_DECIMALS
from htxas.errors import StructureError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure as PymatgenStructure

__all__ = [
    "ase_moments_muB",
    "collinear_muB",
    "pymatgen_moments_muB",
    "refuse_spin_labels",
    "refuse_unreadable_moments",
]

Floats = npt.NDArray[np.float64]

_OFF_AXIS_muB = 0.005  # rounding of the second decimal a magnetic CIF gives; a true canting is larger
_OTHER_NAMES = re.compile(r"mag\w*mom|\Amoments?\Z|spin", re.IGNORECASE)
_SPIN_LABEL = re.compile(r",spin=[-+]?[\d.]+")
_AXES = tuple(f"_atom_site_moment_crystalaxis_{a}" for a in "xyz")
_OPERATIONS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
_CIF_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(\(\d+\))?\Z")
_P1 = {
    "_symmetry_int_tables_number": "1",
    "_space_group_it_number": "1",
    "_symmetry_space_group_name_h-m": "p1",
    "_space_group_name_h-m_alt": "p1",
}
_MAGNETIC = (
    "_space_group_symop_magn_operation_xyz",
    "_space_group_magn_name_bns",
    "_space_group_magn_number_bns",
)


def collinear_muB(values: npt.ArrayLike, n: int, where: str) -> Floats | None:
    """Return collinear moments, or None if all are zero.

    Parameters
    ----------
    values
        Moments of the atoms in Bohr magnetons, shape (n,), or Cartesian vectors, shape (n, 3).
    n
        Number of atoms.
    where
        Named in errors.

    Raises
    ------
    StructureError
        Not numbers, not finite, not one per atom, or not along one axis.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise StructureError(
            "magnetic moments that are not numbers", where=where, hint="one per atom, in Bohr magnetons"
        ) from None
    if array.shape not in ((n,), (n, 3)) or not np.isfinite(array).all():
        raise StructureError(
            f"magnetic moments that are not one finite number for each of the {n} atoms",
            where=where,
            hint="one per atom, in Bohr magnetons",
        )
    if not _any(array):
        return None
    if array.ndim == 1:
        return array
    sizes = np.linalg.norm(array, axis=1)
    axis = array[int(sizes.argmax())] / sizes.max()
    axis *= np.sign(axis[int(np.abs(axis).round(6).argmax())])
    along: Floats = array @ axis
    if np.abs(array - np.outer(along, axis)).max() > _OFF_AXIS_muB:
        raise StructureError(
            "noncollinear magnetic moments",
            where=where,
            hint="only moments along one axis have a meaning here",
        )
    return along


def ase_moments_muB(atoms: Any, where: str) -> Floats | None:
    """Return the moments of an image ASE has read: calculated ones where there are some, else initial ones.

    Raises
    ------
    StructureError
        As :func:`collinear_muB`; calculated moments of zero beside initial ones; a total without the atoms' moments; a
        column that looks like moments under a name nobody defines.
    """
    n, results = len(atoms), {} if atoms.calc is None else atoms.calc.results
    total = results.get("magmom")
    given = [results.get("magmoms"), atoms.arrays.get("initial_magmoms")]
    if total is not None and np.shape(total)[:1] == (n,) and (n != 3 or np.ndim(total) == 2):
        given.insert(1, total)  # a column of that name lands among what belongs to all atoms
        total = None
    found = [collinear_muB(values, n, where) for values in given if values is not None]
    moments = next((m for m in found if m is not None), None)
    if moments is not None and found[0] is None:
        raise StructureError(
            "initial magnetic moments, but calculated ones of zero",
            where=where,
            hint="keep the column that is meant: initial_magmoms or magmoms",
        )
    if moments is None and total is not None and _any(total):
        raise StructureError(
            f"a total magnetic moment of {total} Bohr magnetons, but none of the atoms",
            where=where,
            hint="give the atoms' in a column initial_magmoms, or take the total (magmom) out to go without spin",
        )
    for name, values in atoms.arrays.items():
        if name != "initial_magmoms" and _OTHER_NAMES.search(name) and _any(values):
            raise StructureError(
                f"a column {name!r} that may be magnetic moments",
                where=where,
                hint="call them initial_magmoms, in Bohr magnetons, or take the column out",
            )
    return moments


def pymatgen_moments_muB(crystal: PymatgenStructure, where: str) -> Floats | None:
    """Return the moments of a crystal pymatgen has read: of its sites, or of its species' spins.

    Raises
    ------
    StructureError
        As :func:`collinear_muB`.
    """
    sites: Any = list(crystal)
    given = [site.properties.get("magmom") for site in sites]
    if all(m is None for m in given):
        given = [getattr(site.specie, "spin", None) for site in sites]
    if all(m is None for m in given):
        return None
    return collinear_muB([_vector(m) for m in given], len(sites), where)


def _vector(moment: Any) -> Any:
    if hasattr(moment, "global_moment"):  # a Magmom, whose own components count from its spin axis
        return moment.global_moment
    plain = np.asarray(0.0 if moment is None else moment, dtype=np.float64)
    return plain if plain.shape == (3,) else [0.0, 0.0, float(plain)]


def refuse_spin_labels(text: str, where: str) -> None:
    """Refuse species such as ``Ni2+,spin=5``: pymatgen writes them, and reads them without the spin.

    Raises
    ------
    StructureError
        There is one.
    """
    label = _SPIN_LABEL.search(text)
    if label and float(label[0].removeprefix(",spin=")):
        raise StructureError(
            f"species with spins ({label[0].lstrip(',')!r}), which are not read back",
            where=where,
            hint="write the moments as a magnetic CIF (site property magmom, write_magmoms), or take the spins out",
        )


def refuse_unreadable_moments(blocks: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse a CIF of whose moments, or of whose atoms beside them, pymatgen would lose some without a word.

    Parameters
    ----------
    blocks
        The blocks of the file as they are: name of an item -> its value or values.
    where
        Named in errors.

    Raises
    ------
    StructureError
        Moments in other components than those along the crystal's axes, not numbers, of atoms that are not there, or
        with symmetry operations that say nothing of them.
    """
    for block in blocks.values():
        plain = {key.lower().replace(".", "_"): value for key, value in block.items()}
        if not any(key.startswith("_atom_site_moment") for key in plain):
            continue
        # pymatgen compares letter by letter: names in capitals are others to it
        known = {key.replace(".", "_") for key in block}
        if not known.issuperset(("_atom_site_moment_label", *_AXES)):
            raise StructureError(
                "magnetic moments that are not given along the crystal's axes",
                where=where,
                hint="give _atom_site_moment.crystalaxis_x, _y and _z, or take the moments out to go without spin",
            )
        if isinstance(plain["_atom_site_moment_label"], str):
            raise StructureError(
                "a magnetic moment that is not in a loop", where=where, hint="write loop_ before its items"
            )
        strangers = set(_listed(plain["_atom_site_moment_label"])) - set(
            _listed(plain.get("_atom_site_label", []))
        )
        if strangers:
            raise StructureError(
                f"a magnetic moment of {min(strangers)!r}, which is no atom of the file",
                where=where,
                hint="correct _atom_site_moment.label",
            )
        wrong = [v for axis in _AXES for v in _listed(plain[axis]) if not _CIF_NUMBER.match(v)]
        if wrong:  # pymatgen would take all of them for zero
            raise StructureError(
                f"a magnetic moment of {wrong[0]!r}",
                where=where,
                hint="give all components in Bohr magnetons",
            )
        if any(key in plain for key in _MAGNETIC):
            continue
        many = any(len(_listed(plain[key])) > 1 for key in _OPERATIONS if key in plain)
        if many or any(_plain(plain[key]) != one for key, one in _P1.items() if key in plain):
            raise StructureError(
                "magnetic moments beside symmetry operations that do not say what they do to moments",
                where=where,
                hint="give a magnetic space group (_space_group_symop_magn_operation.xyz), or all atoms in P 1",
            )


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(v) for v in value]


def _plain(word: Any) -> str:
    return str(word).replace(" ", "").lower()


def _any(values: Any) -> bool:
    """Whether there is more than noise."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return True  # words: whoever asks for them will say so
    return bool(array.round(MOMENT_DECIMALS).any())
