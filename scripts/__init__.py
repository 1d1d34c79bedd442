"""Programs around the papers: tables from run folders, pre-training of the small model."""
