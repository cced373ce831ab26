"""A workspace moved to another release of the upstream, with what its files and people need."""
