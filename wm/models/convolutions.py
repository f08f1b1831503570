"""V's strided convolutions as products that a CPU computes at nearly its full rate (a GPU uses the plain layers).

The strided kernels of the CPU library reach 10 to 60% of its matrix product, transposed ones least. A layer of
stride 2 with an even kernel is a layer of stride 1 with half the kernel on a *folded* image, whose pixels are blocks of
2x2; that one is fast, and folding is a copy of whole rows. Where the image is small or the kernel odd, a layer is one
matrix product with all its windows laid side by side. No sum is added or left out, only their order differs.

Shapes: B batch, H W height and width, C channels (I in, O out), K kernel. Images have their channels last,
[B, H, W, C], contiguous; a folded image is [B, H/2, W/2, 4*C], a block's pixels row by row. Weights are PyTorch's,
[O, I, K, K] of a convolution and [I, O, K, K] of a transposed one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_backward = torch.ops.aten.convolution_backward
_threshold_backward = torch.ops.aten.threshold_backward


def fold(image: Tensor) -> Tensor:
    """[B, H, W, C] with even H and W -> [B, H/2, W/2, 4*C]."""
    return torch.cat(_blocks(image).unbind(3), dim=3)  # twice as fast as one copy of all where C is small


def spread(folded: Tensor) -> Tensor:
    """The inverse of `fold`: [B, H, W, 4*C] -> [B, 2*H, 2*W, C]."""
    batch, height, width, channels = folded.shape
    return _pixels(folded).reshape(batch, 2 * height, 2 * width, channels // 4)


def fold_weight(weight: Tensor) -> Tensor:
    """[P, Q, K, K] with even K -> [P, 4*Q, K/2, K/2]: to a folded image what `weight` is at stride 2."""
    p, q, k, _ = weight.shape
    blocks = weight.reshape(p, q, k // 2, 2, k // 2, 2).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(p, 4 * q, k // 2, k // 2).contiguous(memory_format=torch.channels_last)


def folded_conv(folded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of stride 2, weight [O, I, K, K], K even: folded [B, H, W, 4*I] -> [B, H - K/2 + 1, .., O]."""
    return F.conv2d(folded.permute(0, 3, 1, 2), fold_weight(weight), bias).permute(0, 2, 3, 1)


def folded_deconv(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The transposed one, weight [I, O, K, K], K even: [B, H, W, I] -> folded [B, H + K/2 - 1, .., 4*O]."""
    return _Deconv.apply(image, fold_weight(weight), bias.repeat(4))


def window_conv(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of stride 2 as one product: [B, H, W, I], weight [O, I, K, K] -> [B, (H - K)/2 + 1, .., O]."""
    kernel = weight.shape[-1]
    windows = _Windows.apply(image, kernel)
    rows = weight.permute(0, 2, 3, 1).flatten(1)  # [O, K*K*I]
    return torch.addmm(bias, windows.flatten(0, 2), rows.t()).unflatten(0, windows.shape[:3])


def window_deconv(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The transposed one as one product: [B, H, W, I], weight [I, O, K, K] -> [B, 2*H + K - 2, .., O]."""
    kernel = weight.shape[-1]
    rows = weight.permute(0, 2, 3, 1).flatten(1)  # [I, K*K*O]
    windows = torch.mm(image.flatten(0, 2), rows).unflatten(0, image.shape[:3])
    return _Sum.apply(windows, kernel, bias)


def relu_fold(image: Tensor) -> Tensor:
    """`fold(relu(image))` in one pass, without an odd last row and column (which no even kernel of stride 2 reads)."""
    return _ReluFold.apply(image)


def relu_spread(folded: Tensor) -> Tensor:
    """`spread(relu(folded))` in one pass."""
    return _ReluSpread.apply(folded)


def _blocks(image: Tensor) -> Tensor:
    """[B, H, W, C] -> [B, H/2, W/2, 2, 2*C], a view."""
    batch, height, width, channels = image.shape
    even = image[:, : height // 2 * 2, : width // 2 * 2]
    row, pixel = image.stride(1), image.stride(2)
    shape = (batch, height // 2, width // 2, 2, 2 * channels)
    return even.as_strided(shape, (image.stride(0), 2 * row, 2 * pixel, row, 1), image.storage_offset())


def _pixels(folded: Tensor) -> Tensor:
    """[B, H, W, 4*C] -> [B, H, 2, W, 2*C], a view."""
    return folded.unflatten(3, (2, -1)).transpose(2, 3)


def _window_view(image: Tensor, kernel: int) -> Tensor:
    """[B, H, W, C] contiguous -> [B, (H - K)/2 + 1, .., K, K*C], a view of overlapping windows two pixels apart."""
    batch, height, width, channels = image.shape
    assert image.is_contiguous()
    row = width * channels
    shape = (batch, (height - kernel) // 2 + 1, (width - kernel) // 2 + 1, kernel, kernel * channels)
    return image.as_strided(shape, (height * row, 2 * row, 2 * channels, row, 1))


def _window_sum(windows: Tensor, image: Tensor) -> Tensor:
    """Adds windows [B, H, W, K*K*C] to the image at their places; returns the image."""
    batch, height, width, _ = windows.shape
    channels = image.shape[-1]
    kernel = image.shape[1] - 2 * (height - 1)
    squares = windows.view(batch, height, width, kernel, kernel, channels)
    for i in range(height):
        for j in range(width):
            image[:, 2 * i : 2 * i + kernel, 2 * j : 2 * j + kernel].add_(squares[:, i, j])
    return image


class _Deconv(torch.autograd.Function):
    """A transposed convolution of stride 1: image [B, H, W, I], weight [I, O, K, K], bias [O]."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(image, weight)
        return F.conv_transpose2d(image.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        image, weight = ctx.saved_tensors
        image, grad = image.permute(0, 3, 1, 2), grad.contiguous()
        out = grad.permute(0, 3, 1, 2)
        common = ([1, 1], [0, 0], [1, 1])
        grad_image = _backward(out, image, weight, None, *common, True, [0, 0], 1, [True, False, False])[0]
        # The weight's gradient as that of the convolution which goes the other way: twice as fast.
        grad_weight = _backward(image, out, weight, None, *common, False, [0, 0], 1, [False, True, False])[1]
        return grad_image.permute(0, 2, 3, 1), grad_weight, grad.sum((0, 1, 2))


class _Windows(torch.autograd.Function):
    """[B, H, W, C] -> its windows side by side, [B, (H - K)/2 + 1, .., K*K*C]."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, kernel: int) -> Tensor:
        ctx.shape = image.shape
        return _window_view(image.contiguous(), kernel).flatten(3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _window_sum(grad.contiguous(), grad.new_zeros(ctx.shape)), None


class _Sum(torch.autograd.Function):
    """Windows [B, H, W, K*K*C] added up where they overlap, plus a bias [C] -> [B, 2*H + K - 2, .., C]."""

    @staticmethod
    def forward(ctx: Any, windows: Tensor, kernel: int, bias: Tensor) -> Tensor:
        ctx.kernel = kernel
        batch, height, width, _ = windows.shape
        size = (batch, 2 * (height - 1) + kernel, 2 * (width - 1) + kernel, len(bias))
        return _window_sum(windows, bias.expand(size).contiguous())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad = grad.contiguous()
        return _window_view(grad, ctx.kernel).flatten(3), None, grad.sum((0, 1, 2))


class _ReluFold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        blocks = _blocks(image)
        out = torch.clamp_min(blocks, 0.0, out=torch.empty(blocks.shape, dtype=image.dtype, device=image.device))
        ctx.save_for_backward(out)
        ctx.shape = image.shape
        return out.flatten(3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (out,) = ctx.saved_tensors
        image = grad.new_empty(ctx.shape)
        _threshold_backward.grad_input(grad.reshape(out.shape), out, 0.0, grad_input=_blocks(image))
        if ctx.shape[1] % 2:
            image[:, -1] = 0.0
            image[:, :, -1] = 0.0
        return image


class _ReluSpread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, folded: Tensor) -> Tensor:
        batch, height, width, channels = folded.shape
        out = torch.empty(batch, 2 * height, 2 * width, channels // 4, dtype=folded.dtype, device=folded.device)
        torch.clamp_min(_pixels(folded).transpose(2, 3), 0.0, out=_blocks(out))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (out,) = ctx.saved_tensors
        blocks = _blocks(out)
        folded = torch.empty(blocks.shape, dtype=out.dtype, device=out.device)
        return _threshold_backward.grad_input(_blocks(grad.contiguous()), blocks, 0.0, grad_input=folded).flatten(3)
