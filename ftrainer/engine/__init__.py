"""The loop, what it leaves on disk, and the device it runs on."""
