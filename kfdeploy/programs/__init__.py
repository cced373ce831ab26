"""Outside programs in our words; `process` is the only module that starts any."""
