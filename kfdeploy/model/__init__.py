"""What it happens to: values, with no files and no programs."""
