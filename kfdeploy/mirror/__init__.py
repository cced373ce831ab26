"""Copies locked images from an origin to a destination: a registry or a bundle.

Offers a plan (`mirror.plan_mirror`), the transfer itself (`mirror.run_mirror`), progress for people
and for JSON, and `prune`, which lists and deletes manifests that no kept release set needs.

A new kind of place implements `stores.Origin` or `stores.Destination`. This package knows nothing
of a bundle's format, of manifests of Kubernetes, or of the command line.
"""
