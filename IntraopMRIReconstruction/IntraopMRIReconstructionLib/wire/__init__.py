"""Bytes to typed messages: OpenIGTLink and MRD, transport, recorder, scanner control."""
