"""Image references in the bytes of programs and texts, ranked and held against the catalogue."""
