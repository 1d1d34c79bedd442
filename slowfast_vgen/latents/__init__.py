"""Where frames become latents and come back."""
