"""What prices are worth: measured rows priced without themselves and from other cards, as a page."""
