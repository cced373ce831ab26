"""List the addresses outside the cluster that manifests name and programs connect to.

`scan` runs it all. `endpoints` walks objects, `text` finds addresses in strings, `addresses` tells
which are outside, `classify` says what each is for, and `report` holds the result.
"""
