"""FAL: federated adversarial learning (arXiv 2208.03635)."""
