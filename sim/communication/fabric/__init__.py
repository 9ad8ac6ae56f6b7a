"""The fabric under a step: cabling, flows, the ways they take, and how that slows them."""
