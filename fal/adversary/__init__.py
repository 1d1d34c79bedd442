"""What the attacks of `fal.attack` are made of: balls, gains, ways to climb, and judges at test time."""
