"""CASTEP: plane waves and on-the-fly pseudopotentials, molecules in a box and crystals; the user's own executable."""
