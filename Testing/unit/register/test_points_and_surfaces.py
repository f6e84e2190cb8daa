"""Landmarks and surfaces with a known pose; the expected error against simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.register.landmarks import register_landmarks
from IntraopMRILib.register.surface import register_surface
from IntraopMRIReconstructionLib.data import Level
from IntraopMRIReconstructionLib.errors import RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, pose_error

LANDMARKS = np.array([(0, 95, 10), (-70, 10, 0), (70, 10, 0), (0, 80, 60), (20, -60, 70), (-40, 60, 70)], dtype=float)


def test_exact_pairs_give_the_pose(pose: Any) -> None:
    truth = pose((1, 2, 3), 140.0, (30.0, -200.0, 12.0))
    found = register_landmarks(LANDMARKS, apply(truth, LANDMARKS))
    np.testing.assert_allclose(found.target_from_source, truth, atol=1e-9)
    assert found.fre_mm < 1e-9
    assert found.verdict.level is Level.GOOD


def test_expected_error_agrees_with_simulation(pose: Any) -> None:
    truth = pose((0, 1, 1), 30.0, (5.0, 6.0, 7.0))
    targets = apply(truth, [(0.0, 0.0, 0.0), (30.0, 20.0, 40.0), (0.0, -80.0, -40.0)])
    rng = np.random.default_rng(0)
    true_tre, expected = [], []
    for _ in range(600):
        noisy = apply(truth, LANDMARKS) + rng.normal(0.0, 1.5 / np.sqrt(3.0), LANDMARKS.shape)
        found = register_landmarks(LANDMARKS, noisy)
        moved = apply(found.target_from_source, apply(np.linalg.inv(truth), targets))
        true_tre.append(((moved - targets) ** 2).sum(axis=1))
        expected.append(found.expected_tre_mm(targets) ** 2)
    simulated, predicted = np.sqrt(np.mean(true_tre, axis=0)), np.sqrt(np.mean(expected, axis=0))
    np.testing.assert_allclose(predicted, simulated, rtol=0.1)


def test_a_confused_landmark_is_refused_and_seen(pose: Any) -> None:
    target = apply(pose((1, 0, 0), 20.0, (3.0, 2.0, 1.0)), LANDMARKS)
    target[2] += (0.0, 40.0, 0.0)
    found = register_landmarks(LANDMARKS, target)
    assert found.verdict.level is Level.REFUSED
    assert int(np.argmax(found.residuals_mm)) == 2


def test_landmarks_that_cannot_fix_a_pose(pose: Any) -> None:
    line = np.array([(0, 0, 0), (10, 0, 0), (50, 0.5, 0)], dtype=float)
    for points, text in ((LANDMARKS[:2], "at least 3"), (line, "one line"), (LANDMARKS * np.nan, "finite")):
        with pytest.raises(RegistrationError, match=text):
            register_landmarks(points, points)
    with pytest.raises(RegistrationError, match="pairs"):
        register_landmarks(LANDMARKS, LANDMARKS[:4])
    assert register_landmarks(LANDMARKS[:3], LANDMARKS[:3]).verdict.level is Level.CHECK


def face(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals on the front of a head: an ellipsoid with a nose and a brow."""
    rng = np.random.default_rng(seed)
    x, z = rng.uniform(-65, 65, count), rng.uniform(-60, 70, count)

    def height(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        skull = 95.0 * np.sqrt(np.maximum(0.05, 1 - (x / 78) ** 2 - (z / 95) ** 2))
        nose = 22.0 * np.exp(-((x / 9) ** 2) - ((z + 10) / 16) ** 2)
        brow = 6.0 * np.exp(-(((np.abs(x) - 25) / 18) ** 2) - ((z - 20) / 7) ** 2)
        return skull + nose + brow + 3.0 * np.sin(x / 17.0) * np.exp(-(((z - 40) / 20.0) ** 2))

    y = height(x, z)
    step = 0.01
    normal = np.stack([-(height(x + step, z) - y) / step, np.ones_like(y), -(height(x, z + step) - y) / step], axis=1)
    return np.stack([x, y, z], axis=1), normal / np.linalg.norm(normal, axis=1, keepdims=True)


def test_traced_face_with_lifted_points(pose: Any) -> None:
    surface, normals = face(20000, 0)
    truth = pose((0.2, 1.0, 0.1), 12.0, (8.0, -6.0, 5.0))
    traced = face(250, 1)[0]
    trace = apply(np.linalg.inv(truth), traced) + np.random.default_rng(2).normal(0, 0.3, traced.shape)
    trace[::15] += (0.0, 12.0, 0.0)
    found = register_surface(trace, surface, normals)
    distance, angle = pose_error(found.target_from_source, truth, np.linalg.inv(truth)[:3] @ (0.0, 60.0, 0.0, 1.0))
    assert (distance, angle) < (1.0, 1.5)
    assert angle < 1.5
    assert found.verdict.level is Level.GOOD, found.verdict.text


def test_a_trace_on_a_ball_holds_nothing() -> None:
    points = np.random.default_rng(0).standard_normal((3000, 3))
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    found = register_surface(points[:100] * 80.0, points * 80.0, points)
    assert found.verdict.level is Level.CHECK
    assert "hold" in found.verdict.text


def test_another_surface_is_refused() -> None:
    surface, normals = face(5000, 0)
    cloud = np.random.default_rng(0).uniform(-60, 60, (200, 3))
    assert register_surface(cloud, surface, normals).verdict.level is Level.REFUSED
    with pytest.raises(RegistrationError, match="at least 20"):
        register_surface(cloud[:5], surface, normals)
