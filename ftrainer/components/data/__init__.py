"""Data sources: frozen specs whose `open` gives batches as a pure function of (seed, epoch, index)."""
