"""What kfdeploy knows of programs that their manifests do not say: images, settings, connections.

Facts are data (`data/`, one YAML file a component), each with the source it was read in. Nothing
here knows how they are found in an upstream or patched.
"""
