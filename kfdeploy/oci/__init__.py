"""Images and registries by their specifications: references, manifests, attachments, signing."""
