"""The release set: the rendered folder that `apply` takes and that is carried over the gap.

`render` makes one from the patched components, `order` plans its releases, `format` and `summary`
write its files, `folder` reads it back. `verify` checks it, `publish` pushes it as an OCI artifact,
and `diff` compares two of them. Nothing here knows a cluster.
"""
