"""What objects make something reach for outside the cluster, besides images."""
