"""Two release sets: images, objects, rights, connections, what an upgrade deletes or recreates."""
