"""Writes, reads and checks bundles: images, release sets and kfdeploy on disks for the far side.

A bundle is an OCI image layout in one or more parts. `write` prepares a new bundle, `read` opens
and imports one. The copying itself is done by `mirror`, for which a bundle is one more origin or
destination. This package knows nothing of manifests of Kubernetes or of the command line.
"""
