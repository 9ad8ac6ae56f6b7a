"""What crosses links: expert exchanges, the fabric under them, and how traffic shares it."""
