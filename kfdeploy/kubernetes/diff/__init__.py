"""Two versions of an object.

Offers the fields that differ (`fields`), who manages a field (`managers`), why an object must be
recreated (`recreate`) and a value's change as lines (`hunks`). Must not read files or a cluster.
"""
