"""CarRacing's frames drawn straight to what V sees, in the place of Gymnasium's 1000x800 surface.

Gymnasium draws every polygon of the track at every step, shrinks the surface to 96x96, and V sees rows 0..83
of that resized to 64x64. Here the track is rasterised once an episode into a map with antialiased edges. A
frame is one bilinear warp of the map, at whose resolution the blur is about that of Gymnasium's shrinking,
and the car drawn over it, supersampled.

Lengths are world units, angles radians, images RGB with a fourth channel that only pads (OpenCV is more than
twice as fast on four channels as on three). "Surface" is Gymnasium's 1000x800.
"""

from __future__ import annotations

import math
from functools import cache

import Box2D
import cv2
import numpy as np
from gymnasium.envs.box2d import car_dynamics as parts
from gymnasium.envs.box2d import car_racing as gym

from wm.worlds.base import FRAME_SHAPE

MAP_SCALE = 1.5  # map pixels a unit; a multiple of 0.06, so that grass patches end where pixels do
MARGIN = 72  # map pixels around the track, as far as is seen from the road; a multiple of 8
SUPER = 4  # samples a map pixel and axis while rasterising: two halvings
LEVELS = 5  # of a map's pyramid, each half as fine: the first second zooms in from 18 times as far
BILINEAR = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
SHIFT = 4  # fractional bits of the corners handed to OpenCV
ONE = 1 << SHIFT

HEIGHT = 84  # rows of Gymnasium's 96x96 picture above the dashboard
SIDE = FRAME_SHAPE[0]
FRAME_X, FRAME_Y = (
    SIDE / gym.WINDOW_W,
    SIDE / (gym.WINDOW_H * HEIGHT / gym.STATE_H),
)  # pixels a surface pixel
CENTRE_X, CENTRE_Y = SIDE / 2, gym.WINDOW_H * 3 / 4 * FRAME_Y  # of the car's hull in the frame
FULL_ZOOM = gym.ZOOM * gym.SCALE  # surface pixels a unit

CAR_SUPER = 6  # samples a frame pixel and axis while drawing the car
CAR_X, CAR_Y, CAR_WIDTH, CAR_HEIGHT = 29, 50, 6, 10  # the part of the frame that the car can touch
CAR_SIZE = CAR_WIDTH * CAR_SUPER, CAR_HEIGHT * CAR_SUPER
FINE = CAR_SUPER * ONE  # fixed-point units a frame pixel
ORIGIN_X, ORIGIN_Y = (CENTRE_X - CAR_X) * FINE - ONE / 2, (CENTRE_Y - CAR_Y) * FINE - ONE / 2  # of the hull
HULL_POLYGONS = (parts.HULL_POLY1, parts.HULL_POLY2, parts.HULL_POLY3, parts.HULL_POLY4)
HULL = [np.array(p) * parts.SIZE for p in HULL_POLYGONS]
WHEEL_X, WHEEL_Y = parts.WHEEL_W * parts.SIZE, parts.WHEEL_R * parts.SIZE
AXLES = [(x * parts.SIZE, y * parts.SIZE) for x, y in parts.WHEELPOS]

DARKER = 2  # levels that Gymnasium's fixed-point shrinking takes from every plain colour
GRASS, PATCH, ROAD = (100, 202, 100, 0), (100, 228, 100, 0), 100  # ROAD: the grey of a touched tile
HULL_COLOR, WHEEL_COLOR, STRIPE_COLOR = (202, 0, 0, 0), (0, 0, 0, 0), (75, 75, 75, 0)


def zoom_at(t: float) -> float:
    """Surface pixels a unit, `t` seconds into the episode: Gymnasium zooms in during the first second."""
    return 0.1 * gym.SCALE * max(1 - t, 0) + FULL_ZOOM * min(t, 1)


def pyramid(image: np.ndarray) -> list[np.ndarray]:
    """`image`, whose sides are multiples of 16, and its halvings by area."""
    images = [image]
    for _ in range(LEVELS - 1):
        height, width = images[-1].shape[:2]
        images.append(cv2.resize(images[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return images


def grass_map(left: int, bottom: int, scale: float, width: int, height: int) -> np.ndarray:
    """Grass and its patches [height, width, 4]; its corner lies (left, bottom) pixels from the origin."""
    side = round(gym.GRASS_DIM * scale)  # every second square, in both axes, is a patch
    image = np.empty((height, width, 4), np.uint8)
    pixels = image.view(np.uint32)[..., 0]
    grass, patch = np.array([GRASS, PATCH], np.uint8).view(np.uint32)[:, 0]
    pixels[:] = grass
    for y in range(-bottom % (2 * side) - 2 * side, height, 2 * side):
        for x in range(-left % (2 * side) - 2 * side, width, 2 * side):
            pixels[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = patch
    return image


@cache
def plain_maps() -> list[np.ndarray]:
    """The playfield without a track in black surroundings: a pyramid that all environments share."""
    half = round(gym.PLAYFIELD * MAP_SCALE)
    field = grass_map(-half, -half, MAP_SCALE, 2 * half, 2 * half)
    edge = -half % 8 + 8  # black, and makes the sides multiples of 16
    return pyramid(np.pad(field, ((edge, edge), (edge, edge), (0, 0))))


def narrowed(corners: np.ndarray) -> np.ndarray:
    """Tiles [N, 4, 2] as OpenCV must be given them: it fills every sample that an edge touches."""
    inset = 0.5 / (MAP_SCALE * SUPER) - 0.5 / FULL_ZOOM  # so does Gymnasium, with finer samples
    across = corners[:, [1, 0, 3, 2]] - corners  # along the road they must keep touching
    width = np.linalg.norm(across, axis=-1, keepdims=True)  # 0 for a kerb where the road does not bend
    return corners + inset * across / np.maximum(width, 1e-9)


class Drawing:
    """Draws one environment's frames: `lay` at each reset, then `draw` at each step."""

    def __init__(self) -> None:
        self._frame = np.empty((SIDE, SIDE, 4), np.uint8)

    def lay(self, polygons: list) -> None:
        """Rasterises a new track: Gymnasium's `road_poly`, (four corners, colour) in drawing order."""
        self._maps = []  # let the last track's memory go first
        corners = np.array([p for p, _ in polygons])  # [N, 4, 2]
        colors = np.maximum(np.array([c for _, c in polygons]).astype(int) - DARKER, 0)
        low = np.floor((corners.min((0, 1)) - 1) * MAP_SCALE).astype(int)
        size = np.ceil(((corners.max((0, 1)) + 1) * MAP_SCALE - low) / 16).astype(int) * 16
        fine = grass_map(*(low * SUPER), MAP_SCALE * SUPER, *(size * SUPER))  # type: ignore[call-arg]  # two and two
        points = ((narrowed(corners) * MAP_SCALE - low) * SUPER - 0.5) * ONE
        for corners, color in zip(np.rint(points).astype(np.int32), colors.tolist(), strict=True):
            cv2.fillConvexPoly(fine, corners, color, cv2.LINE_8, SHIFT)
        for _ in range(2):  # halving twice is five times as fast as shrinking to a quarter
            fine = cv2.resize(fine, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        self._left, self._bottom = (low - MARGIN).tolist()
        image = grass_map(self._left, self._bottom, MAP_SCALE, *(size + 2 * MARGIN))
        image[MARGIN:-MARGIN, MARGIN:-MARGIN] = fine
        self._maps = pyramid(image)
        self._touched: set[int] = set()

    def draw(self, car: parts.Car, t: float) -> np.ndarray:
        """The frame [64, 64, 3] of `car` on the track, `t` seconds into the episode."""
        for wheel in car.wheels:
            for tile in wheel.tiles:
                if tile.idx not in self._touched:
                    self._touch(tile)
        zoom = zoom_at(t)
        if zoom == FULL_ZOOM:
            del self._maps[1:]  # not needed again before the next reset
        (x, y), angle = car.hull.position, car.hull.angle
        self._draw_ground(x, y, angle, zoom)
        self._draw_car(car.wheels, angle, zoom)
        return cv2.cvtColor(self._frame, cv2.COLOR_RGBA2RGB)

    def _touch(self, tile: Box2D.b2Body) -> None:
        """Paints a tile as Gymnasium does from the first contact on: without its own shade."""
        self._touched.add(tile.idx)
        shade = int(0.01 * (tile.idx % 3) * 255)
        if not shade:
            return
        corners = np.array(tile.fixtures[0].shape.vertices) * MAP_SCALE - (self._left, self._bottom)
        (x0, y0), (x1, y1) = np.floor(corners.min(0)).astype(int) - 1, np.ceil(corners.max(0)).astype(int) + 1
        part = self._maps[0][y0:y1, x0:x1]
        lighter = np.zeros(part.shape[:2], np.uint8)
        points = np.rint((corners - (x0, y0) - 0.5) * ONE).astype(np.int32)
        cv2.fillConvexPoly(lighter, points, shade, cv2.LINE_8, SHIFT)
        red = part[..., 0]  # of grass and road alike it is ROAD or a little more; of kerbs it is far more
        lighter = np.where(red <= ROAD + shade, np.minimum(lighter, red - ROAD), 0)
        part[..., :3] -= lighter[..., None]

    def _draw_ground(self, x: float, y: float, angle: float, zoom: float) -> None:
        """Fills the frame with the ground around the car at (x, y)."""
        # world = (x, y) + [[a, b], [c, d]] (frame - centre), where the frame's y axis points down
        a, b = math.cos(angle) / (zoom * FRAME_X), math.sin(angle) / (zoom * FRAME_Y)
        c, d = math.sin(angle) / (zoom * FRAME_X), -math.cos(angle) / (zoom * FRAME_Y)
        x, y = x - a * CENTRE_X - b * CENTRE_Y, y - c * CENTRE_X - d * CENTRE_Y  # the frame's corner (0, 0)
        level = min(max(round(math.log2(FULL_ZOOM / zoom)), 0), LEVELS - 1)

        def warp(image: np.ndarray, scale: float, left: float, bottom: float, border: int) -> None:
            matrix = np.array(
                (
                    (a * scale, b * scale, (x + a / 2 + b / 2) * scale - left - 0.5),
                    (c * scale, d * scale, (y + c / 2 + d / 2) * scale - bottom - 0.5),
                )
            )
            cv2.warpAffine(image, matrix, (SIDE, SIDE), self._frame, BILINEAR, border)

        image, scale = self._maps[level], MAP_SCALE / 2**level
        left, bottom = self._left / 2**level, self._bottom / 2**level
        mid_x, reach_x = (x + (a + b) * SIDE / 2) * scale - left, (abs(a) + abs(b)) * SIDE / 2 * scale + 1
        mid_y, reach_y = (y + (c + d) * SIDE / 2) * scale - bottom, (abs(c) + abs(d)) * SIDE / 2 * scale + 1
        height, width = image.shape[:2]
        if not (reach_x <= mid_x <= width - reach_x and reach_y <= mid_y <= height - reach_y):
            plain = plain_maps()[level]
            corner = -plain.shape[0] / 2
            warp(plain, MAP_SCALE / 2**level, corner, corner, cv2.BORDER_CONSTANT)
        warp(image, scale, left, bottom, cv2.BORDER_TRANSPARENT)

    def _draw_car(self, wheels: list, angle: float, zoom: float) -> None:
        """Draws the car over the frame, where its hull never moves; wheels turn, and their stripes roll."""
        patch = self._frame[CAR_Y : CAR_Y + CAR_HEIGHT, CAR_X : CAR_X + CAR_WIDTH]
        fine = cv2.resize(patch, CAR_SIZE, interpolation=cv2.INTER_NEAREST)
        quads, colors = [], []
        for wheel, axle in zip(wheels, AXLES, strict=True):
            turn, phase = wheel.angle - angle, wheel.phase
            quads.append(wheel_part(axle, turn, 1, -1, zoom))
            colors.append(WHEEL_COLOR)
            s1, s2 = math.sin(phase), math.sin(phase + 1.2)
            if s1 <= 0 or s2 <= 0:  # the stripe, or a part of it, is on the upper side
                c1, c2 = math.cos(phase), math.cos(phase + 1.2)
                front = math.copysign(1, c1) if s1 > 0 else c1
                back = math.copysign(1, c2) if s2 > 0 else c2
                quads.append(wheel_part(axle, turn, front, back, zoom))
                colors.append(STRIPE_COLOR)
        for points, color in zip(np.array(quads, np.int32), colors, strict=True):
            cv2.fillConvexPoly(fine, points, color, cv2.LINE_8, SHIFT)
        if zoom == FULL_ZOOM:
            cv2.copyTo(*FULL_HULL, fine)
        else:
            draw_hull(fine, zoom)
        cv2.resize(fine, (CAR_WIDTH, CAR_HEIGHT), dst=patch, interpolation=cv2.INTER_AREA)


def wheel_part(axle: tuple[float, float], turn: float, front: float, back: float, zoom: float) -> tuple:
    """Corners of a wheel's part between two shares of its radius, as `draw_hull` scales them."""
    cos, sin = math.cos(turn), math.sin(turn)
    a, b = zoom * FRAME_X * FINE, -zoom * FRAME_Y * FINE
    x, y = axle[0] * a + ORIGIN_X, axle[1] * b + ORIGIN_Y
    wx, wy = WHEEL_X * cos * a, WHEEL_X * sin * b
    ax, ay = -sin * WHEEL_Y * a, cos * WHEEL_Y * b
    x1, y1, x2, y2 = x + ax * front, y + ay * front, x + ax * back, y + ay * back
    return (x1 - wx, y1 - wy), (x1 + wx, y1 + wy), (x2 + wx, y2 + wy), (x2 - wx, y2 - wy)


def draw_hull(fine: np.ndarray, zoom: float) -> np.ndarray:
    """Fills the hull in the supersampled part of the frame, and returns that."""
    for points in HULL:
        corners = points * (zoom * FRAME_X * FINE, -zoom * FRAME_Y * FINE) + (ORIGIN_X, ORIGIN_Y)
        cv2.fillConvexPoly(fine, corners.astype(np.int32), HULL_COLOR, cv2.LINE_8, SHIFT)
    return fine


FULL_HULL = draw_hull(np.zeros((*CAR_SIZE[::-1], 4), np.uint8), FULL_ZOOM)
FULL_HULL = FULL_HULL, FULL_HULL[..., 0].copy()  # and its mask
