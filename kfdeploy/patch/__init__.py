"""Generate `patches/` and `helmfile.yaml.gotmpl`, and apply patches.

Offers `generate_patches`, `find_drift`, the values that patches look up, and `apply_patches` with
the checks that each patch still fits. Knows the catalogue, the inventory and features; must not
know release sets, clusters or registries.
"""
