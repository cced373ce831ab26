"""Look into images and source code for references to images that no manifest names.

`scan` runs it all. `image_sources` opens images; `tar_stream`, `layers` and `layer` read their
layers; `binary`, `go_strings` and `text` find candidates in one file; `candidate` scores them;
`compare` sorts them by what is known; `proposal` writes catalogue entries; `checkout` reads source.
"""
