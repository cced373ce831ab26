"""Looking into images, for references that programs in them hold as text."""
