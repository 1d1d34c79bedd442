"""PERK: Long-Context Reasoning as Parameter-Efficient Test-Time Learning (ICLR 2026)."""
