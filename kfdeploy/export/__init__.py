"""The lock, a release set and the workspace as other tools' input, one module for each format."""
