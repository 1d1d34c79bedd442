"""CLUTRR-SG: how two persons are related, from a chain of kinship facts (sheet section 2.2)."""
