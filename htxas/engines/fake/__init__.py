"""A fake engine: numbers from a hash, failures on demand. For tests of the manager; it computes no physics."""
