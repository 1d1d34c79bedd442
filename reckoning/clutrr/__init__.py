"""CLUTRR-SG: how two persons are related, from a chain of kinship facts (paper, appendix A)."""
