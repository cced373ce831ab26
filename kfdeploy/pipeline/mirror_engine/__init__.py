"""How the mirror moves blobs: a board of tasks, and workers."""
