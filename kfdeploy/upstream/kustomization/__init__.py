"""Read kustomizations, follow their references, and build them.

`parse` reads one file, `graph` follows references through a tree, `build` runs kustomize without
network access. Must not know workspaces, components or locks.
"""
