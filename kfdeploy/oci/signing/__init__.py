"""Make and check signatures by key: of files, and of images as cosign signs them.

`keys` reads PEM files, `cosign` reads the formats of signatures, and `verify` puts them together.
Certificates and transparency logs are left out: they need services that an air gap does not have.
"""
