"""Images, release set and kfdeploy itself on disks that are carried over the gap.

Offers writing, reading and checking of a bundle. A bundle is an OCI layout in parts; copying itself
is the work of `mirror`, for which a bundle is one more place to copy from or to.
"""
