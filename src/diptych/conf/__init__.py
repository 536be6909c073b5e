"""Configuration files, part of the package."""
