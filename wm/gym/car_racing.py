"""`wm/CarRacing96-v3`: Gymnasium's `CarRacing-v3` with its own 96x96 frames, dashboard and all, drawn as fast as V's.

Physics, track, reward, actions (continuous or discrete) and ends are Gymnasium's code. Frames are drawn as
`wm.worlds.car_racing.drawing` does, at 96x84 pixels, with Gymnasium's own dashboard below. Colours that are drawn by
lot (`domain_randomize`) are left to Gymnasium's drawing.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pygame
from gymnasium.envs.box2d import car_racing as gym
from gymnasium.envs.box2d.car_racing import CarRacing as GymnasiumCarRacing

from wm.worlds.car_racing import drawing
from wm.worlds.car_racing.drawing import BILINEAR, FULL_ZOOM, HEIGHT, HULL, LEVELS, MAP_SCALE, ONE, SHIFT, Drawing

WIDTH = gym.STATE_W
PER_X, PER_Y = WIDTH / gym.WINDOW_W, gym.STATE_H / gym.WINDOW_H  # pixels a surface pixel
CENTRE_X, CENTRE_Y = WIDTH / 2, gym.WINDOW_H * 3 / 4 * PER_Y  # of the car's hull in the frame
CAR_X, CAR_Y, CAR_WIDTH, CAR_HEIGHT = 43, 65, 10, 14  # the part of the frame that the car can touch
CAR_SUPER = 6
FINE = CAR_SUPER * ONE
ORIGIN_X, ORIGIN_Y = (CENTRE_X - CAR_X) * FINE - ONE / 2, (CENTRE_Y - CAR_Y) * FINE - ONE / 2
TEXT_AT = 60, gym.WINDOW_H - gym.WINDOW_H * 2.5 / 40.0
BELOW = pygame.Rect(0, gym.WINDOW_H * HEIGHT // gym.STATE_H, gym.WINDOW_W, gym.WINDOW_H // 8)
"""The dashboard's part of Gymnasium's surface."""


class CarRacing(GymnasiumCarRacing):
    """Gymnasium's `CarRacing-v3`, drawn fast; arguments as Gymnasium's."""

    def __init__(self, render_mode: str | None = None, verbose: bool = False, lap_complete_percent: float = 0.95,
                 domain_randomize: bool = False, continuous: bool = True):  # fmt: skip
        super().__init__(render_mode, verbose, lap_complete_percent, domain_randomize, continuous)
        self._drawing = None if domain_randomize else WideDrawing()

    def _create_track(self) -> bool:
        done = super()._create_track()
        if done and self._drawing:
            self._drawing.lay(self.road_poly)
        return done

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels" or self._drawing is None or "t" not in self.__dict__:
            return super()._render(mode)
        return np.concatenate([self._drawing.draw(self.car, self.t), self._dashboard()])

    def _dashboard(self) -> np.ndarray:
        """Gymnasium's, [12, 96, 3]: drawn by its own code, and only this part of the surface is shrunk."""
        if not pygame.font.get_init():
            pygame.font.init()
        if "_board" not in self.__dict__:
            self._board = pygame.Surface((gym.WINDOW_W, gym.WINDOW_H))
            self._font = pygame.font.Font(pygame.font.get_default_font(), 42)
        before, self.surf = getattr(self, "surf", None), self._board
        self._render_indicators(gym.WINDOW_W, gym.WINDOW_H)
        self.surf = before
        text = self._font.render(f"{self.reward:04.0f}", True, (255, 255, 255), (0, 0, 0))
        place = text.get_rect()
        place.center = TEXT_AT
        self._board.blit(text, place)
        small = pygame.transform.smoothscale(self._board.subsurface(BELOW), (WIDTH, gym.STATE_H - HEIGHT))
        return pygame.surfarray.array3d(small).transpose(1, 0, 2)


class WideDrawing(Drawing):
    """Frames [84, 96, 3] instead of V's."""

    def __init__(self) -> None:
        self._frame = np.empty((HEIGHT, WIDTH, 4), np.uint8)

    def _draw_ground(self, x: float, y: float, angle: float, zoom: float) -> None:
        # world = (x, y) + [[a, b], [c, d]] (frame - centre), where the frame's y axis points down
        a, b = math.cos(angle) / (zoom * PER_X), math.sin(angle) / (zoom * PER_Y)
        c, d = math.sin(angle) / (zoom * PER_X), -math.cos(angle) / (zoom * PER_Y)
        x, y = x - a * CENTRE_X - b * CENTRE_Y, y - c * CENTRE_X - d * CENTRE_Y  # the frame's corner (0, 0)
        level = min(max(round(math.log2(FULL_ZOOM / zoom)), 0), LEVELS - 1)

        def warp(image: np.ndarray, scale: float, left: float, bottom: float, border: int) -> None:
            matrix = np.array(
                (
                    (a * scale, b * scale, (x + a / 2 + b / 2) * scale - left - 0.5),
                    (c * scale, d * scale, (y + c / 2 + d / 2) * scale - bottom - 0.5),
                )
            )
            cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), self._frame, BILINEAR, border)

        plain = drawing.plain_maps()[level]
        corner = -plain.shape[0] / 2
        warp(plain, MAP_SCALE / 2**level, corner, corner, cv2.BORDER_CONSTANT)
        scale = MAP_SCALE / 2**level
        warp(self._maps[level], scale, self._left / 2**level, self._bottom / 2**level, cv2.BORDER_TRANSPARENT)

    def _draw_car(self, wheels: list, angle: float, zoom: float) -> None:
        patch = self._frame[CAR_Y : CAR_Y + CAR_HEIGHT, CAR_X : CAR_X + CAR_WIDTH]
        size = CAR_WIDTH * CAR_SUPER, CAR_HEIGHT * CAR_SUPER
        fine = cv2.resize(patch, size, interpolation=cv2.INTER_NEAREST)
        for wheel, axle in zip(wheels, drawing.AXLES, strict=True):
            turn, s1, s2 = wheel.angle - angle, math.sin(wheel.phase), math.sin(wheel.phase + 1.2)
            _fill(fine, _wheel(axle, turn, 1, -1, zoom), drawing.WHEEL_COLOR)
            if s1 <= 0 or s2 <= 0:  # the stripe, or a part of it, is on the upper side
                c1, c2 = math.cos(wheel.phase), math.cos(wheel.phase + 1.2)
                front = math.copysign(1, c1) if s1 > 0 else c1
                back = math.copysign(1, c2) if s2 > 0 else c2
                _fill(fine, _wheel(axle, turn, front, back, zoom), drawing.STRIPE_COLOR)
        for points in HULL:
            corners = points * (zoom * PER_X * FINE, -zoom * PER_Y * FINE) + (ORIGIN_X, ORIGIN_Y)
            _fill(fine, corners, drawing.HULL_COLOR)
        cv2.resize(fine, (CAR_WIDTH, CAR_HEIGHT), dst=patch, interpolation=cv2.INTER_AREA)


def _fill(image: np.ndarray, corners: Any, color: tuple[int, ...]) -> None:
    cv2.fillConvexPoly(image, np.array(corners, np.int32), color, cv2.LINE_8, SHIFT)


def _wheel(axle: tuple[float, float], turn: float, front: float, back: float, zoom: float) -> np.ndarray:
    """Corners [4, 2] of a wheel's part between two shares of its radius."""
    cos, sin = math.cos(turn), math.sin(turn)
    a, b = zoom * PER_X * FINE, -zoom * PER_Y * FINE
    across = np.array([drawing.WHEEL_X * cos * a, drawing.WHEEL_X * sin * b])
    along = np.array([-sin * drawing.WHEEL_Y * a, cos * drawing.WHEEL_Y * b])
    middle = np.array([axle[0] * a + ORIGIN_X, axle[1] * b + ORIGIN_Y])
    return np.stack([
        middle + along * front - across, middle + along * front + across,
        middle + along * back + across, middle + along * back - across,
    ])  # fmt: skip
