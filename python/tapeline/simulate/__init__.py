"""Producers for tests and demonstrations, with an account of what was sent.

`simulate_radar` sends the frames of `spec/frame-stream.md` over TCP, UDP or into a file, breaks some of them on
purpose, and says afterwards what it did and what a receiver must have found. `simulate_battery` (`battery` for
short) sends the register packets of `spec/register-packets.md` and says what image must come of them. Sending happens
in compiled threads; Python waits.
"""

from tapeline.simulate._battery import BatterySimulation, simulate_battery
from tapeline.simulate._radar import FaultRates, RadarSimulation, simulate_radar
from tapeline.simulate._simulation import SendError

battery = simulate_battery

__all__ = [
    "BatterySimulation",
    "FaultRates",
    "RadarSimulation",
    "SendError",
    "battery",
    "simulate_battery",
    "simulate_radar",
]
