"""A cluster, over `kubectl proxy`: reading, writing, waiting, deleting, locks, Helm's records."""
