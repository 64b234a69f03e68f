"""What annotators made of suggestions, counted, and what follows from it."""
