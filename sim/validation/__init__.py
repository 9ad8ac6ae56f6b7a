"""What the simulator answers of published figures: one file a kind of figure, and the pages that show them."""
