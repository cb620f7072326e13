"""Plugins that ship with ftrainer: they use `ftrainer`, `ftrainer.api` and `registry`, and nothing else of the project."""
