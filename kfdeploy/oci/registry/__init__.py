"""A client of registries: sign-in, manifests, blobs, uploads, referrers, what their errors mean."""
