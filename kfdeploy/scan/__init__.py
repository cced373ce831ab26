"""Find what an installation pulls and connects to.

`scan` and `component` list the images of rendered components, `content` looks into images and
source code for references that no manifest names, and `egress` lists addresses outside the cluster.

The package must not know how images are locked, mirrored or patched.
"""
