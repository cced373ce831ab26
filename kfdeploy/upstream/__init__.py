"""Fetch Kubeflow's manifests with all their remote bases, and build the components in them.

Offers `plan_workspace` (a first `kfdeploy.yaml`), `plan_vendoring` (a complete local `upstream/`
and its lock) and `render_components` (the objects of each component, with the upstream line that
each value is from). Must not know patches, mirrors, release sets or clusters.
"""
