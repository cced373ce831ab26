"""Moving a workspace to another release of its upstream: what stays, what goes, what is new."""
