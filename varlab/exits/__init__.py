"""Early exits end to end: what they save, what they cost, and what training for them changes."""
