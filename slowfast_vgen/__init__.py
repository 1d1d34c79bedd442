"""SlowFast-VGen: slow-fast learning for action-driven long video generation (arXiv 2410.23277)."""
