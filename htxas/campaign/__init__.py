"""Campaign file -> molecules -> unique sites -> cost -> batches. No database, no queue."""
