"""From inventory and features to `patches/` and `helmfile.yaml.gotmpl`, and applying patches."""
