"""What differs: between two release sets, and between a set and a cluster."""
