"""What a site adds: each feature turns its settings into patches and new objects."""
