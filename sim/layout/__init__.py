"""Who holds what and where: ranks on a mesh, stages on positions, and what travels between them."""
