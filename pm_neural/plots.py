"""Pictures that ArviZ does not have: a network's weights, and states of its units, as images.

Every function draws into the axes it is given or makes a figure of its own, returns the axes, and
never shows them. Matplotlib's pyplot is imported on first use.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

__all__ = ["units_grid", "weights"]


def weights(
    W: ArrayLike,
    image_shape: tuple[int, int],
    *,
    n_columns: int | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw the weights of each hidden unit as an image over the visible units.

    All images share one color scale, symmetric about zero, so that their strengths can be compared.

    Parameters
    ----------
    W : array_like, shape (n_visible, n_hidden)
        Weights; column j belongs to hidden unit j.
    image_shape : (int, int)
        Rows and columns of one image; their product is n_visible.
    n_columns : int, optional
        Images in a row; about square if not given.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if not given.
    **kwargs
        Passed on to :meth:`matplotlib.axes.Axes.imshow`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `W` is not a finite matrix or does not fit `image_shape`.
    """
    W = np.asarray(W, dtype=float)
    if W.ndim != 2:
        raise ValueError(f"W must have shape (n_visible, n_hidden), got {W.shape}")
    limit = np.abs(W).max(initial=0.0) or 1.0
    style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} | kwargs
    return _draw_images("W", W.T, image_shape, n_columns, ax, style, gap_color="gray")


def units_grid(
    units: ArrayLike,
    image_shape: tuple[int, int],
    *,
    n_columns: int | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw states or probabilities of a layer of units as a grid of images, one for each row.

    Fantasy particles, training images and probabilities of units all lie in [0, 1]; 0 is drawn
    white and 1 black unless `cmap`, `vmin` or `vmax` say otherwise.

    Parameters
    ----------
    units : array_like, shape (..., n_units)
        Leading axes (chain, draw) are laid out one after another, the last of them fastest.
    image_shape : (int, int)
        Rows and columns of one image; their product is n_units.
    n_columns : int, optional
        Images in a row; about square if not given.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if not given.
    **kwargs
        Passed on to :meth:`matplotlib.axes.Axes.imshow`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `units` is not finite or does not fit `image_shape`.
    """
    units = np.atleast_1d(np.asarray(units, dtype=float))
    n_images = math.prod(units.shape[:-1])
    style = {"cmap": "gray_r", "vmin": 0.0, "vmax": 1.0} | kwargs
    images = units.reshape(n_images, units.shape[-1])
    return _draw_images("units", images, image_shape, n_columns, ax, style, gap_color="lightsteelblue")


def _draw_images(
    name: str,
    images: np.ndarray,
    image_shape: tuple[int, int],
    n_columns: int | None,
    ax: Axes | None,
    style: dict[str, Any],
    gap_color: str,
) -> Axes:
    """Check and draw images of shape (n_images, n_units), called `name` in errors.

    The gaps between them have a color that is not in the color map: blank images have an edge.
    """
    height, width = _checked_image_shape(image_shape)
    n_images, n_units = images.shape
    if n_units != height * width:
        raise ValueError(
            f"{name} has {n_units} units an image, but image_shape {(height, width)} needs {height * width}"
        )
    if n_images == 0:
        raise ValueError(f"{name} holds no image to draw")
    if not np.isfinite(images).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if n_columns is None:
        n_columns = math.ceil(math.sqrt(n_images))
    elif n_columns < 1:
        raise ValueError(f"n_columns must be at least 1, got {n_columns}")

    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    style["cmap"] = plt.get_cmap(style["cmap"]).with_extremes(bad=gap_color)
    style = {"interpolation": "nearest"} | style
    ax.imshow(_mosaic(images.reshape(n_images, height, width), n_columns), **style)
    ax.set_axis_off()
    return ax


def _checked_image_shape(image_shape: Sequence[int]) -> tuple[int, int]:
    if len(image_shape) != 2 or min(image_shape) < 1:
        raise ValueError(f"image_shape must be two positive numbers, got {image_shape!r}")
    return int(image_shape[0]), int(image_shape[1])


def _mosaic(images: np.ndarray, n_columns: int) -> np.ndarray:
    """Put images (n, height, width) into one, NaN between them and where the last row ends."""
    n_images, height, width = images.shape
    n_rows = math.ceil(n_images / n_columns)
    tiles = np.full((n_rows * n_columns, height + 1, width + 1), np.nan)
    tiles[:n_images, :height, :width] = images
    grid = tiles.reshape(n_rows, n_columns, height + 1, width + 1).swapaxes(1, 2)
    return grid.reshape(n_rows * (height + 1), n_columns * (width + 1))[:-1, :-1]
