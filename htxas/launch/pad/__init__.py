"""FireWorks' LaunchPad, in bulk: batches as Fireworks, checked out and completed without its locks."""
