"""YAML as text: nodes with their places, and plain values written so that every YAML reads them."""
