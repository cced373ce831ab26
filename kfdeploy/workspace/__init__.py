"""`kfdeploy.yaml`: settings as typed values, and the file with the line of each key."""
