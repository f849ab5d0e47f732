"""WIEN2k: full-potential APW+lo with all electrons, a core hole in a supercell, absorption by XSPEC. The user's own."""
