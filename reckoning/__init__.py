"""RECKONING: reasoning through dynamic knowledge encoding (Chen et al., NeurIPS 2023)."""
