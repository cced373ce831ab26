"""Where a value of a built object came from: file, line and key in the upstream."""
