"""Judgements of the check before applying: what the cluster has, against what the set needs."""
