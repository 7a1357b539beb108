"""What runs write, and how it is read back."""
