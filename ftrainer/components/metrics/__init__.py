"""Figures over a whole split, computed from its concatenated outputs and targets."""
