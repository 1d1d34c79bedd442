"""Downloads: models from the Hugging Face hub, one of them from the package index too."""
