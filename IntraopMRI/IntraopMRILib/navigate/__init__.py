"""Pose in, distances, alarms and reslice planes out."""
