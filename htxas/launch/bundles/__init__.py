"""Work carried to where the database cannot be reached, and back."""
