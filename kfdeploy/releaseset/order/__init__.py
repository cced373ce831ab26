"""The order in which the releases of a set are installed, derived from their objects.

`references` and `webhooks` yield edges between objects, `split` cuts components into releases, and
`plan` puts the releases in order. Pure: no file is read here.
"""
