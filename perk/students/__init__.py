"""Student records: many small facts, and questions about one, two or all of them."""
