"""Locking: the digests of an inventory's images, what is behind them, and who signed them.

`resolve.resolve_digests` is its entry. It asks registries, and knows neither manifests nor where
images go.
"""
