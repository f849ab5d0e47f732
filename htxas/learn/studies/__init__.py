"""Studies: many runs of one question, and the table, plots and words they end in. One file per study."""
