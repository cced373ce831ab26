"""The order of a release set, derived from its objects: who comes before whom, and why."""
