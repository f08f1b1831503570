"""CarRacing's frames drawn straight to what V sees, in the place of Gymnasium's 1000x800 surface.

Gymnasium draws every polygon of the track on each step, shrinks the surface to 96x96, and V sees rows 0..83 of that
resized to 64x64. Here the track is rasterised once an episode into a map with antialiased edges. A frame is one
bilinear warp of the map to those 96x84 pixels (the map's resolution makes its blur that of Gymnasium's shrinking),
the car drawn over it with supersampling, and the same last resize.

Lengths are world units, angles radians, colours RGB; a map's fourth channel only pads (OpenCV is twice as fast on
four channels as on three).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from gymnasium.envs.box2d import car_dynamics as car_parts
from gymnasium.envs.box2d import car_racing as gym_car

MAP_SCALE = 3  # map pixels a unit
SUPER = 2  # samples a map pixel and axis while rasterising
LEVELS = 5  # of the map's pyramid, each half as fine: the first second zooms in from 18 times as far
PLAIN_SCALE = 1.5  # of the grass map, which shows beyond the edge of the track's map
SHIFT = 4  # fractional bits of the corners handed to OpenCV
STRIP = 64  # map rows rasterised at a time

WIDTH, HEIGHT = gym_car.STATE_W, 84  # the part of Gymnasium's frame above the dashboard
UNITS_TO_FRAME = np.array([WIDTH / gym_car.WINDOW_W, gym_car.STATE_H / gym_car.WINDOW_H])  # frame px a surface px
CENTRE = np.array([gym_car.WINDOW_W / 2, gym_car.WINDOW_H * 3 / 4]) * UNITS_TO_FRAME  # of the car, in the frame

CAR_SUPER = 8  # samples a frame pixel and axis while drawing the car
CAR_BOX = np.array([[42, 64], [54, 80]])  # frame pixels that the car can touch: (x0, y0), (x1, y1)
HULL = [np.array(p) * car_parts.SIZE for p in
        (car_parts.HULL_POLY1, car_parts.HULL_POLY2, car_parts.HULL_POLY3, car_parts.HULL_POLY4)]
HULL_COLOR, WHEEL_COLOR, STRIPE_COLOR = (202, 0, 0, 0), (0, 0, 0, 0), (75, 75, 75, 0)
WHEEL = np.array([(-1, 1), (1, 1), (1, -1), (-1, -1)]) * (car_parts.WHEEL_W, car_parts.WHEEL_R) * car_parts.SIZE

DARKER = 2  # levels that Gymnasium's fixed-point shrinking takes from every channel of a plain area
GRASS, PATCH = (100, 202, 100, 0), (100, 228, 100, 0)


def zoom_at(t: float) -> float:
    """Surface pixels a unit, `t` seconds into the episode: Gymnasium zooms in during the first second."""
    return 0.1 * gym_car.SCALE * max(1 - t, 0) + gym_car.ZOOM * gym_car.SCALE * min(t, 1)


def pyramid(image: np.ndarray, levels: int) -> list[np.ndarray]:
    """`image` and its halvings by area, `levels` in all; sides must be multiples of 2^(levels - 1)."""
    images = [image]
    for _ in range(levels - 1):
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
        images.append(image)
    return images


def grass_cover(start: float, scale: float, length: int) -> np.ndarray:
    """Share [length] of each pixel, in one axis, that lies on the chequered patches; pixel 0 begins at `start`."""
    edges = (start + np.arange(length + 1) / scale) / gym_car.GRASS_DIM
    integral = np.floor(edges / 2) + np.minimum(edges % 2, 1)  # patches cover [0, 1) of every 2
    return np.diff(integral) * gym_car.GRASS_DIM * scale


def grass_map(x: float, y: float, scale: float, width: int, height: int) -> np.ndarray:
    """Grass and its patches [height, width, 4] from the corner (x, y) on."""
    cover = np.outer(grass_cover(y, scale, height), grass_cover(x, scale, width))
    image = np.empty((height, width, 4), np.uint8)
    image[:] = GRASS
    image[..., 1] = np.rint(GRASS[1] + (PATCH[1] - GRASS[1]) * cover)
    return image


class Drawing:
    """Draws one environment's frames; `lay` at each reset, then `draw` at each step."""

    def __init__(self) -> None:
        bound = gym_car.PLAYFIELD
        size = round(2 * bound * PLAIN_SCALE) // 16 * 16
        self._plain = pyramid(grass_map(-bound, -bound, size / (2 * bound), size, size), LEVELS)
        self._frame = np.empty((HEIGHT, WIDTH, 4), np.uint8)
        self._small = np.empty((64, 64, 4), np.uint8)

    def lay(self, polygons: list) -> None:
        """Rasterises a track: `polygons` as Gymnasium's `road_poly`, (corners, colour) in drawing order."""
        corners = np.array([p for p, _ in polygons])  # [N, 4, 2]
        colors = np.maximum(np.array([(*c, 0) for _, c in polygons]).astype(int) - DARKER, 0).tolist()
        self._origin = corners.min((0, 1)) - 2
        size = np.ceil((corners.max((0, 1)) + 2 - self._origin) * MAP_SCALE / 16).astype(int) * 16
        image = grass_map(*self._origin, MAP_SCALE, *size)
        points = ((corners - self._origin) * (MAP_SCALE * SUPER) - 0.5) * (1 << SHIFT)
        points = np.rint(points).astype(np.int32)
        fine = MAP_SCALE * SUPER
        rows = (corners[..., 1] - self._origin[1]) * MAP_SCALE
        first, last = rows.min(1) - 1, rows.max(1) + 1
        for top in range(0, image.shape[0], STRIP):
            strip = image[top : top + STRIP]
            inside = np.flatnonzero((last >= top) & (first < top + len(strip)))
            if not len(inside):
                continue
            big = cv2.resize(strip, None, fx=SUPER, fy=SUPER, interpolation=cv2.INTER_NEAREST)
            moved = points[inside] - np.array([0, (top * SUPER) << SHIFT], np.int32)
            for n, p in zip(inside, moved, strict=True):
                cv2.fillConvexPoly(big, p, colors[n], cv2.LINE_8, SHIFT)
            cv2.resize(big, (strip.shape[1], strip.shape[0]), dst=strip, interpolation=cv2.INTER_AREA)
        self._maps = pyramid(image, LEVELS)

    def draw(self, car: car_parts.Car, t: float) -> np.ndarray:
        """The frame [64, 64, 3] of `car` on the track, `t` seconds into the episode."""
        zoom = zoom_at(t)
        (x, y), angle = car.hull.position, car.hull.angle
        self._draw_ground(x, y, angle, zoom)
        self._draw_car(car, x, y, angle, zoom)
        cv2.resize(self._frame, (64, 64), dst=self._small, interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(self._small, cv2.COLOR_RGBA2RGB)

    def _draw_ground(self, x: float, y: float, angle: float, zoom: float) -> None:
        level = min(max(round(math.log2(zoom_at(1) / zoom)), 0), LEVELS - 1)
        # world = (x, y) + R(angle) (frame - CENTRE) / (units to frame, y up)
        sx, sy = 1 / (zoom * UNITS_TO_FRAME)
        cos, sin = math.cos(angle), math.sin(angle)
        a = np.array([[cos * sx, sin * sy], [sin * sx, -cos * sy]])
        b = np.array([x, y]) + a @ (0.5 - CENTRE)
        corners = (a @ np.array([[0, WIDTH, 0, WIDTH], [0, 0, HEIGHT, HEIGHT]])).T + b
        scale = MAP_SCALE / 2**level
        here = self._maps[level]
        hi = self._origin + np.array(here.shape[1::-1]) / scale
        if (corners < self._origin + 1).any() or (corners > hi - 1).any():
            plain = self._plain[level]
            s = plain.shape[0] / (2 * gym_car.PLAYFIELD)
            m = np.column_stack([a * s, (b + gym_car.PLAYFIELD) * s - 0.5])
            cv2.warpAffine(plain, m, (WIDTH, HEIGHT), dst=self._frame, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR)
        m = np.column_stack([a * scale, (b - self._origin) * scale - 0.5])
        cv2.warpAffine(here, m, (WIDTH, HEIGHT), dst=self._frame, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_TRANSPARENT)

    def _draw_car(self, car: car_parts.Car, x: float, y: float, angle: float, zoom: float) -> None:
        (x0, y0), (x1, y1) = CAR_BOX
        patch = self._frame[y0:y1, x0:x1]
        big = cv2.resize(patch, None, fx=CAR_SUPER, fy=CAR_SUPER, interpolation=cv2.INTER_NEAREST)
        grid = CAR_SUPER * (1 << SHIFT)
        scale = zoom * UNITS_TO_FRAME * (grid, -grid)
        offset = (CENTRE - CAR_BOX[0]) * grid - (1 << SHIFT) / 2

        def fill(points, color):
            cv2.fillConvexPoly(big, np.rint(points * scale + offset).astype(np.int32), color, cv2.LINE_8, SHIFT)

        cos, sin = math.cos(angle), math.sin(angle)
        for w in car.wheels:
            px, py = w.position
            dx, dy = px - x, py - y
            at = np.array([cos * dx + sin * dy, cos * dy - sin * dx])
            c, s = math.cos(w.angle - angle), math.sin(w.angle - angle)
            turn = np.array([[c, s], [-s, c]])
            fill(WHEEL @ turn + at, WHEEL_COLOR)
            s1, s2 = math.sin(w.phase), math.sin(w.phase + 1.2)
            if s1 > 0 and s2 > 0:
                continue
            c1, c2 = math.cos(w.phase), math.cos(w.phase + 1.2)
            c1 = math.copysign(1, c1) if s1 > 0 else c1
            c2 = math.copysign(1, c2) if s2 > 0 else c2
            fill((WHEEL * [(1, c1), (1, c1), (1, -c2), (1, -c2)]) @ turn + at, STRIPE_COLOR)
        for p in HULL:
            fill(p, HULL_COLOR)
        cv2.resize(big, (x1 - x0, y1 - y0), dst=patch, interpolation=cv2.INTER_AREA)
