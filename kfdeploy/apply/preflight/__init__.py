"""What would go wrong: checks of a set against its cluster before anything is changed.

Each check is a module that takes plain values and returns findings; `preflight` gathers the values.
"""
