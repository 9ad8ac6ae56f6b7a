"""Model families: one file each, from dimensions to the operations of every layer and pass."""
