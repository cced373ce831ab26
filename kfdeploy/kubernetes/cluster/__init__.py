"""A cluster, through `kubectl proxy`.

Offers the client (`client`, over `transport`), reads of many objects at once (`bulk`), waits
(`wait`), deletion (`delete`), the lock of an apply (`lease`), Helm's records (`helm_history`) and
the ownership of objects (`ownership`). Must not know a release set.
"""
