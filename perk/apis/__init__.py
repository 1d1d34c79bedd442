"""API documents, and an instruction that one of them answers."""
