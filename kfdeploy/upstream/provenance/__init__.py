"""Find the upstream file and line that a value of a rendered object is from.

`kustomize` does so for kustomizations, `chart` for Helm charts. Both have the same `locate_value`.
"""
