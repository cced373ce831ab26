"""Copies images from where they are to a registry or a bundle: plan, engine, prune."""
