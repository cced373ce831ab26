"""Real registries and stand-in images, for tests, the demo and the benchmarks."""
