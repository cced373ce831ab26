"""Which images there are: where objects name them, the inventory, the lock, private names.

Values and decisions only: `scan` reads manifests, and `lock` asks registries.
"""
