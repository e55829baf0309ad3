"""The device tier: the port alone against recordings, on a machine that has no TensorFlow.

    pytest --tier=device
    python -m parity_tests.device --short --seconds 60 --json device.json

Both run the same checks (`checks.every`) on the GPU where there is one, else on the CPU, with TF32 off.
The second needs neither pytest nor a terminal, ends in its time and says what it did not reach. What a
recording of the original holds in float64 is held to as everywhere; the float64 truth behind a float32
bound, which elsewhere is the reference's, is here the port's own on the CPU.
"""
