"""What happens when: SimPy runs steps, messages and the inside of steps; arrays do the same for many ranks at once."""
