"""Who is dead, by proof; what they left, delivered or given back."""
