"""Speak HTTP: one client for registries and for downloads.

Offers a pool of kept connections (`pool`), the proxies that the environment names (`proxy`), TLS
that trusts the system's certificate store (`tls`), plain words for connections that fail
(`faults`), and how long to wait before trying again (`retry`). It is the standard library's client:
a mirror with nothing to do is a hundred small requests, and importing a larger client would take
longer than they do.

Must not know what is asked for: registries, tokens and sign-ins are in `oci.registry`.
"""
