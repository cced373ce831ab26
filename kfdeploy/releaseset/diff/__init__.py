"""The differences between two release sets, and what an upgrade must delete, keep or recreate.

`diff` compares objects and uses a module for each further question: images, rights, connections,
kinds. Pure: the objects come as values, and nothing asks a registry or a cluster.
"""
