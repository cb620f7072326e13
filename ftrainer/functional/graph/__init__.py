"""From a function to its graph, and from a graph to what runs: capture, rewriting, and the backends."""
