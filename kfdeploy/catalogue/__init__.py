"""Facts about programs that their manifests do not show: images, settings, connections.

The facts are data: one YAML file for each component in `data/`, and a site's own files. Each fact
has the source it was read in. `records` describes the files, `load` reads them, `facts` looks up
what applies to rendered objects, and `hidden_images` lists images that no manifest names.

The package must not know how images are found in manifests of an upstream, nor how they are
patched.
"""
