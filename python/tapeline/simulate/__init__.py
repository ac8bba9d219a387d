"""Producers for tests and demonstrations, with faults that are accounted for.

`simulate_radar` sends the frames of `spec/frame-stream.md` over TCP, UDP or into a file, breaks some of them on
purpose, and says afterwards what it did and what a receiver must have found. Sending happens in compiled
threads; Python waits.
"""

from tapeline.simulate._radar import FaultRates, RadarSimulation, simulate_radar

__all__ = ["FaultRates", "RadarSimulation", "simulate_radar"]
