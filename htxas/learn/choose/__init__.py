"""What to compute next, and what to look at again: the way from a model back to the campaign."""
