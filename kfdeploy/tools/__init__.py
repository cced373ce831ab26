"""What it is done with: one module per outside program or service."""
