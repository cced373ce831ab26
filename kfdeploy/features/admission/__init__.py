"""Policies that rewrite or refuse images when pods are made, and add pull secrets."""
