"""Entries as HDF5 nodes and back: pure, no file in sight.

A node is what one HDF5 group holds. Content hashes are taken over nodes exactly as stored, so a reader can
check a file without knowing what wrote it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from htxas.datafile.entries import GroundEntry, MoleculeEntry, SiteEntry
from htxas.domain.dos import Pdos
from htxas.domain.spectrum import Spectrum, Sticks
from htxas.domain.structure import Structure

__all__ = ["FORMAT", "VERSION", "Node", "from_node", "group_name", "to_node"]

FORMAT = "htxas-dataset"
VERSION = 1

_WEIGHT_SCALE = 1.0 / 65535  # PDOS weights lie in 0..1: 16 bits keep them to 8e-6, half the size of float32
_JSON_ATTRS = frozenset({"missing", "provenance", "total_energies_eV"})
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Node:
    """Attributes (str, bool, int, float, arrays), arrays and child groups of one HDF5 group."""

    attrs: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    children: dict[str, Node] = field(default_factory=dict)

    def sha256(self) -> str:
        """Hash of everything below this node: names, types, shapes and bytes."""
        h = hashlib.sha256()
        for name in sorted(self.attrs):
            if name != "content_sha256":
                value = self.attrs[name]
                plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
                h.update(json.dumps([name, plain]).encode())
        for name in sorted(self.arrays):
            array = self.arrays[name]
            if array.dtype.kind in "SU":
                array = array.astype("S")
            array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
            h.update(json.dumps([name, array.dtype.str, array.shape]).encode() + array.tobytes())
        for name in sorted(self.children):
            h.update(json.dumps([name, self.children[name].sha256()]).encode())
        return h.hexdigest()


def group_name(name: str) -> str:
    """Return ``name`` as one HDF5 group name: ``/`` and ``%`` are percent-encoded, a bare ``.`` too."""
    quoted = quote(name, safe=" !#$&'()*+,:;=?@[]<>|^`{}\"\\~")
    return quoted.replace(".", "%2E") if quoted.strip(".") == "" else quoted


def to_node(entry: MoleculeEntry) -> Node:
    """Return the molecule as a node, atoms in file order.

    Raises
    ------
    ValueError
        If a PDOS weight lies outside 0..1: 16 bits could not hold it.
    DatasetError
        If a site has a continuous spectrum.
    """
    entry.refuse_curves()
    order = np.asarray(entry.file_order)
    inverse = np.argsort(order)
    structure = entry.structure
    attrs: dict[str, Any] = {
        "name": entry.name,
        "smiles": entry.smiles or "",
        "formula": entry.formula,
        "structure_key": structure.key,
        **({} if entry.ground_key is None else {"ground_key": entry.ground_key}),
        "complete": entry.complete,
        "missing": json.dumps(list(entry.missing)),
        "molecular_weight_u": float(entry.molecular_weight_u),
        "provenance": json.dumps(dict(entry.provenance), sort_keys=True, default=str),
    }
    arrays: dict[str, Array] = {
        "symbols": np.array([structure.symbols[i] for i in inverse], dtype="S"),
        "positions_A": structure.positions_A[inverse],
        "canonical_order": order.astype(np.int32),
    }
    if structure.cell_A is not None:
        arrays["cell_A"] = structure.cell_A
    if structure.moments_muB is not None:
        arrays["moments_muB"] = structure.moments_muB[inverse]
    if entry.excitation_energy_eV is not None:
        attrs["excitation_energy_eV"] = float(entry.excitation_energy_eV)
    if entry.spectrum is not None:
        attrs |= {
            "start": int(entry.spectrum.start),
            "step_eV": float(entry.spectrum.step_eV),
            "sigma_eV": float(entry.spectrum.sigma_eV),
        }
        arrays["energies"] = entry.spectrum.energies_eV
        arrays["spectrum"] = entry.spectrum.columns.astype(np.float32)
    children = {"sites": Node(children={str(s.file_atom): _site_node(s) for s in entry.sites})}
    if entry.ground is not None:
        ground = entry.ground
        attrs |= {
            "total_energy_eV": float(ground.total_energy_eV),
            "homo_eV": float(ground.homo_eV),
            "lumo_eV": float(ground.lumo_eV),
            "gap_eV": float(ground.gap_eV),
            "energy_reference": ground.reference,
            **_names("ground_corrections", ground.corrections),
        }
        if ground.dipole_norm_D is not None:
            attrs |= {
                "dipole_D": ground.dipole_norm_D,
                "dipole_vector_D": np.asarray(ground.dipole_D, dtype=np.float64),
            }
        children["pdos"] = _pdos_node(ground.pdos, inverse, entry.name)
    return Node(attrs, arrays, children)


def _pdos_node(pdos: Pdos, inverse: Array, name: str) -> Node:
    weights = pdos.weights[:, inverse]
    # Loewdin populations lie in 0..1 up to rounding in the engine's output
    if weights.size and (weights.min() < -1e-6 or weights.max() > 1.0 + 1e-6):
        low, high = weights.min(), weights.max()
        raise ValueError(f"{name}: PDOS weights from {low:.3g} to {high:.3g} are outside 0..1")
    packed = np.rint(np.clip(weights, 0.0, 1.0) / _WEIGHT_SCALE).astype(np.uint16)
    shares = {} if pdos.shares is None else {"shares": np.asarray(pdos.shares, dtype=np.float64)}
    end = {} if pdos.complete_to_eV is None else {"complete_to_eV": float(pdos.complete_to_eV)}
    spheres = {"spheres": True} if pdos.spheres else {}
    return Node(
        {"weights_scale": _WEIGHT_SCALE, "complete": pdos.complete, **end, **spheres},
        {
            "energies": np.asarray(pdos.energies_eV, dtype=np.float64),
            "occupations": pdos.occupations.astype(np.float32),
            "weights": packed,
            **shares,
        },
    )


def _site_node(site: SiteEntry) -> Node:
    attrs: dict[str, Any] = {
        "key": site.key,
        "element": site.element,
        "edge": site.edge,
        "multiplicity": int(site.multiplicity),
        "equivalent_file_atoms": np.asarray(site.equivalent_file_atoms, dtype=np.int32),
        "excitation_energy_eV": float(site.excitation_energy_eV),
        "scale": site.scale,
        "total_energies_eV": json.dumps(dict(site.energies_eV), sort_keys=True),
        "hole_overlap": float(site.hole_overlap),
        "window_eV": float(site.window_eV),
        **_names("corrections", site.corrections),
        **_names("another_state", site.another_state),
    }
    if site.ionization_eV is not None:
        attrs["ionization_eV"] = float(site.ionization_eV)
    arrays: dict[str, Array] = {
        "energies": np.asarray(site.sticks.energies_eV, dtype=np.float64),
        "strengths": site.sticks.strengths.astype(np.float32),
    }
    return Node(attrs, arrays)


def from_node(node: Node) -> MoleculeEntry:
    """Rebuild a molecule from its node.

    Raises
    ------
    KeyError, ValueError
        If something is missing or does not fit together; the structure is checked against its own key.
    """
    attrs = {k: json.loads(v) if k in _JSON_ATTRS else v for k, v in node.attrs.items()}
    symbols = [s.decode() for s in node.arrays["symbols"]]
    structure, order = Structure.from_atoms(
        symbols,
        node.arrays["positions_A"],
        node.arrays.get("cell_A"),
        moments_muB=node.arrays.get("moments_muB"),
        where=attrs["name"],
    )
    if structure.key != attrs["structure_key"] or list(order) != node.arrays["canonical_order"].tolist():
        raise ValueError(f"the atoms of {attrs['name']} do not match their structure key")
    sites = sorted((_site(int(k), v) for k, v in node.children["sites"].children.items()), key=_by_atom)
    pdos = node.children.get("pdos")
    return MoleculeEntry(
        name=attrs["name"],
        structure=structure,
        file_order=order,
        ground_key=attrs.get("ground_key"),
        smiles=attrs["smiles"] or None,
        molecular_weight_u=float(attrs["molecular_weight_u"]),
        complete=bool(attrs["complete"]),
        missing=tuple(attrs["missing"]),
        spectrum=_spectrum(attrs, node.arrays) if "spectrum" in node.arrays else None,
        ground=None if pdos is None else _ground(attrs, pdos, np.asarray(order)),
        sites=tuple(sites),
        provenance=attrs["provenance"],
    )


def _by_atom(site: SiteEntry) -> int:
    return site.file_atom


def _spectrum(attrs: Mapping[str, Any], arrays: Mapping[str, Array]) -> Spectrum:
    intensity = arrays["spectrum"][:, 1:].astype(np.float64)
    spectrum = Spectrum(int(attrs["start"]), float(attrs["step_eV"]), intensity, float(attrs["sigma_eV"]))
    if not np.allclose(spectrum.energies_eV, arrays["energies"], rtol=0, atol=1e-6):
        raise ValueError(f"the grid of {attrs['name']} is not start, step and length")
    return spectrum


def _ground(attrs: Mapping[str, Any], node: Node, order: Array) -> GroundEntry:
    weights = node.arrays["weights"][:, order].astype(np.float64) * float(node.attrs["weights_scale"])
    occupations = node.arrays["occupations"].astype(np.float64)
    shares, complete = node.arrays.get("shares"), bool(node.attrs.get("complete", True))
    dipole, end = attrs.get("dipole_vector_D"), node.attrs.get("complete_to_eV")
    return GroundEntry(
        total_energy_eV=float(attrs["total_energy_eV"]),
        homo_eV=float(attrs["homo_eV"]),
        lumo_eV=float(attrs["lumo_eV"]),
        dipole_D=None if dipole is None else np.asarray(dipole, dtype=np.float64),
        pdos=Pdos(
            node.arrays["energies"],
            occupations,
            weights,
            shares,
            complete,
            None if end is None else float(end),
            spheres=bool(node.attrs.get("spheres", False)),
        ),
        corrections=_told(attrs, "ground_corrections"),
        reference=attrs.get("energy_reference", "vacuum"),
    )


def _site(file_atom: int, node: Node) -> SiteEntry:
    attrs = node.attrs
    ionization = attrs.get("ionization_eV")
    return SiteEntry(
        key=attrs["key"],
        file_atom=file_atom,
        element=attrs["element"],
        edge=attrs["edge"],
        multiplicity=int(attrs["multiplicity"]),
        equivalent_file_atoms=tuple(int(i) for i in attrs["equivalent_file_atoms"]),
        excitation_energy_eV=float(attrs["excitation_energy_eV"]),
        ionization_eV=None if ionization is None else float(ionization),
        scale=attrs["scale"],
        energies_eV=json.loads(attrs["total_energies_eV"]),
        hole_overlap=float(attrs["hole_overlap"]),
        window_eV=float(attrs["window_eV"]),
        sticks=Sticks(node.arrays["energies"], node.arrays["strengths"].astype(np.float64)),
        corrections=_told(attrs, "corrections"),
        another_state=_told(attrs, "another_state"),
    )


def _names(attribute: str, names: tuple[str, ...] | None) -> dict[str, str]:
    """Return names as a JSON list; what is not known gets no attribute, as in files from before there was one."""
    return {} if names is None else {attribute: json.dumps(list(names))}


def _told(attrs: Mapping[str, Any], attribute: str) -> tuple[str, ...] | None:
    return tuple(json.loads(attrs[attribute])) if attribute in attrs else None
