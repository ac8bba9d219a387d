"""What the system benchmarks are made of: processes, output, receivers, measurements, report."""
