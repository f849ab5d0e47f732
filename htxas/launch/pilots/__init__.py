"""Queue jobs that run agents: how many, where, what became of them."""
