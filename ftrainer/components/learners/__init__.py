"""Algorithms: each a spec with `init`, `update` and `evaluate`."""
