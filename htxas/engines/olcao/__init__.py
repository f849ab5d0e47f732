"""OLCAO: all electrons in orthogonalised atomic orbitals, a core hole in a crystal's supercell. The user's own."""
