"""Plugins that ship with ftrainer; they use `ftrainer`, `ftrainer.api` and `registry`, nothing else of the project."""
