"""Two versions of an object: which fields differ, who manages them, what must be recreated."""
