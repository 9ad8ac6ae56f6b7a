"""Studies: tables and charts of sweeps that others ran; rendering only."""
