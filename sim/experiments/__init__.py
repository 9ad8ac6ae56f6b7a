"""Many runs of one scenario: sweeps, what each run came to, studies."""
