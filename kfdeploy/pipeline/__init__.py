"""What happens: one module a stage; stages do not import each other."""
