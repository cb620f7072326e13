"""The parts that a configuration names, one file each, by kind."""
