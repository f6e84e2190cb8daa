"""From the scanner's wire to a volume: receive, reconstruct, simulate. Usable without IntraopMRI."""
