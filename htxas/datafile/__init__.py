"""The htxas dataset file: one compressed HDF5 with molecules, sites, spectra and ground states.

Beside it, :mod:`htxas.datafile.published` and :mod:`htxas.datafile.published_read` write and read the three files of
the published layout.

It is what ``htxas export --format dataset`` writes and what training reads. The package sits just above
``domain`` and is the only reader and writer of the format, so ``learn`` and ``report`` meet here without
importing each other.

Reading::

    from htxas.datafile import DatasetFile

    with DatasetFile("reference.h5") as data:
        data.meta.content_sha256, data.meta.engine, data.meta.parameters, len(data)
        for molecule in data:  # streams: one MoleculeEntry at a time
            if not molecule.complete:  # only in files written with incomplete molecules
                continue
            molecule.name, molecule.smiles  # 'gdb_17', 'CCO'
            molecule.structure  # domain Structure (canonical order)
            molecule.spectrum.energies_eV  # (n,) absolute eV, whole multiples of 0.1 eV
            molecule.spectrum.total  # (n,) mean of x, y, z, oscillator strength per eV and atom
            molecule.excitation_energy_eV  # lowest first final state among the sites
            molecule.ground.homo_eV, molecule.ground.lumo_eV, molecule.ground.gap_eV
            molecule.ground.dipole_D  # (3,); the dipole moment is molecule.ground.dipole_norm_D
            molecule.ground.pdos.curve(
                grid,
                atoms=molecule.structure.indices_of("C"),
                angular=("s", "p"),
                zero_eV=molecule.ground.homo_eV,
                where=f"molecule {molecule.name}",
            )  # refuses a grid that goes beyond the levels the code has computed: see Pdos.curve_to_eV
            for site in molecule.sites:
                site.file_atom, site.multiplicity, site.sticks

``data.names()`` lists names, ``data.molecule(name)`` reads one, ``data.verify()`` recomputes the
content hash.

Layout (version 1)
------------------
Root attributes: ``format`` (``htxas-dataset``), ``format_version``, ``campaign``, ``engine``, ``parameters``
(JSON), ``created_by`` (htxas version), ``n_molecules``, ``n_sites``, ``n_incomplete``, ``content_sha256``.

``/molecules/{name}`` (atoms in *file* order, counted from 0)
    attributes ``name``, ``smiles``, ``formula``, ``structure_key``, ``ground_key``, ``complete``, ``missing``
    (JSON list of calculation keys), ``molecular_weight_u``, ``excitation_energy_eV`` (lowest first final
    state among the sites), ``total_energy_eV``, ``homo_eV``, ``lumo_eV``, ``gap_eV``, ``dipole_D`` (norm),
    ``dipole_vector_D`` (both absent if the engine does not tell), ``energy_reference`` (what levels are counted from;
    absent: ``vacuum``), ``start``, ``step_eV``, ``sigma_eV``, ``provenance`` (JSON: where the geometry came
    from), ``content_sha256``;
    datasets ``symbols`` (n), ``positions_A`` (n,3), ``canonical_order`` (n; canonical atom i is file atom
    ``canonical_order[i]``), ``moments_muB`` (n, Bohr magnetons; absent: none), ``energies`` (absolute eV),
    ``spectrum`` (float32; columns total, x, y, z;
    multiplicity-weighted, orientation-averaged mean of the sites, so x = y = z = total); ``pdos/energies``
    (float64, eV from ``energy_reference``), ``pdos/occupations`` (float32), ``pdos/weights`` (levels, file atoms,
    s p d; uint16, times ``weights_scale`` of ``pdos``: absolute error 8e-6), ``pdos/shares`` (float64, how much of a
    level belongs to the structure; absent: all); ``complete`` of ``pdos``: whether the weights of a level add up to 1;
    ``complete_to_eV`` of ``pdos``: up to where every level is there, eV from ``energy_reference`` (absent: to the end
    of a basis of functions of atoms; of other codes' levels: not told);
    ``spheres`` (absent: False): whether they are charges inside the atoms' spheres.
``/molecules/{name}/sites/{file_atom}``
    attributes ``key``, ``element``, ``edge``, ``multiplicity``, ``equivalent_file_atoms``,
    ``excitation_energy_eV``, ``ionization_eV`` (absent if the engine has none), ``scale``,
    ``total_energies_eV`` (JSON), ``hole_overlap``, ``window_eV``;
    datasets ``energies`` (float64, absolute eV), ``strengths`` (float32, oscillator strengths x, y, z).

A molecule without a ground state or without any finished site lacks those attributes and datasets, and is not
complete. Where the engine has no ground states there is no ``ground_key`` either, and none is needed to be complete.
"""

from __future__ import annotations

from htxas.datafile.entries import CurveEntry, DatasetMeta, GroundEntry, MoleculeEntry, SiteEntry
from htxas.datafile.published_read import (
    Content,
    PublishedFiles,
    PublishedMolecule,
    PublishedSite,
    published_paths,
)
from htxas.datafile.read import DatasetFile
from htxas.datafile.write import DatasetWriter

__all__ = [
    "Content",
    "CurveEntry",
    "DatasetFile",
    "DatasetMeta",
    "DatasetWriter",
    "GroundEntry",
    "MoleculeEntry",
    "PublishedFiles",
    "PublishedMolecule",
    "PublishedSite",
    "SiteEntry",
    "published_paths",
]
