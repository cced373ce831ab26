"""Check a set against its cluster and its registry, before anything is changed.

Each check is a module that takes plain values and returns findings. `preflight` reads the values
and runs the checks. Must not change anything.
"""
