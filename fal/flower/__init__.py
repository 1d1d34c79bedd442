"""FAL's federation as processes of their own, on one machine or several, by Flower."""
