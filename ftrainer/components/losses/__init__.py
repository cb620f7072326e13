"""Losses: from a model's outputs and a batch's targets to one scalar."""
