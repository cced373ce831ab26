"""Talk to registries by the OCI distribution API.

`settings` describes a registry as kfdeploy.yaml does, `access` how it is reached, `transport` sends
requests (signed in by `auth` and `credentials`, retried, at the registry's pace), and `client`,
`push`, `catalog` and `referrers` are the API. All of them raise `errors.RegistryError`, which says
what to do next. `manifest_cache` keeps manifests in the workspace's cache.

Must not know which images a workspace has, or why one is asked for.
"""
