"""Keys, signatures of files, and cosign's signatures of images."""
