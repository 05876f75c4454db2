"""Files read and written whole and within limits."""
