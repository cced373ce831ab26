"""The lock, a release set and the workspace as input of other tools.

Offers the list of formats (`formats`), each a module that declares itself (`format.ExportFormat`),
and the comparison of exported files with a folder (`write`). A format returns text and writes
nothing. The package must not know the command line.
"""
