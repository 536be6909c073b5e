"""A picture and its text."""
