"""Tags to digests: asks registries for each image of an inventory, and for its signatures."""
