"""Mechanism only: errors as data, frozen components, an immutable registry. Imports neither torch nor ftrainer."""
