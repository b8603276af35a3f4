"""Other ways to make container networks, by their real interfaces."""
