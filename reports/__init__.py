"""What people look at: the page, the traces, the tables. Rendering only; nothing here computes a prediction."""
