"""Networks, the loop that fits them, the baselines they must beat, and how good a prediction is."""
