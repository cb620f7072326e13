"""The pure core: pytrees, keys, states, the step and its compilation. Knows no component."""
