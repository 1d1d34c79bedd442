"""How latents become noise, and a prediction becomes latents."""
