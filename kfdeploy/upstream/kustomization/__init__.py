"""Kustomizations: reading them, the graph of what they refer to, building them."""
