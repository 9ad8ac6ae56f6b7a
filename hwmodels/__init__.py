"""What machines are and what they charge. No time passes here, and nothing of ours is imported from outside."""
