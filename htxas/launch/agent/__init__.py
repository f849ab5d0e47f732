"""The process that leases work, hands it to workers, and delivers what they journaled."""
