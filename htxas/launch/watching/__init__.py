"""What is going on: status, metrics, notifications."""
