"""Images of an installation: where objects name them, the inventory, the lock, private names.

It offers the search of an object for references (`sites`), the inventory and the files that are
made of it (`lockfile`, `sources_file`), and the names that images have in a private registry
(`naming`). It holds values and decisions only: it does not know how manifests are rendered (`scan`
does) and never asks a registry (`lock` does).
"""
