"""FireWorks workflows, the worker and its engine processes. The only importer of fireworks."""
