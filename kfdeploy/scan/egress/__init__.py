"""Addresses outside that manifests and programs reach for."""
