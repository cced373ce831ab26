"""Results as text for people: one module for each kind of result, pure functions of values."""
