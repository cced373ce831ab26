"""The rendered folder that `apply` takes: format, rendering, order, verification, publishing."""
