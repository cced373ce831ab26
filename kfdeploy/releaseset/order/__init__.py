"""In which order the releases of a set are installed, derived from their objects."""
