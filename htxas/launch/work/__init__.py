"""The worker's side: a task, its engine process, the journal. No database and no FireWorks."""
