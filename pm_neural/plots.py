"""Pictures that ArviZ does not have: weights and units as images, spikes, membrane potentials, laws of states.

Every function draws into the axes it is given or makes a figure of its own, returns the axes, and
never shows them. Matplotlib's pyplot is imported on first use.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pm_neural._arrays import as_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from pm_neural.diagnostics.divergences import StateProbabilities
    from pm_neural.diagnostics.spikes import SpikeRaster

__all__ = ["refractory_states", "spike_raster", "state_probabilities", "units_grid", "weights"]

_MOST_NUMBERED_ROWS = 40
_LEGEND_MARGIN = 1.3  # about a legend, and for axes that a layout makes smaller later
_TALLEST_LEGEND = 0.8  # of the axes


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
    W = as_array(W).astype(float)
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
    units : array_like, shape (..., n_units) or (..., rows, columns)
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
    units = np.atleast_1d(as_array(units).astype(float))
    if units.shape[-2:] == tuple(image_shape):
        units = units.reshape(*units.shape[:-2], -1)
    n_images = math.prod(units.shape[:-1])
    style = {"cmap": "gray_r", "vmin": 0.0, "vmax": 1.0} | kwargs
    images = units.reshape(n_images, units.shape[-1])
    return _draw_images("units", images, image_shape, n_columns, ax, style, gap_color="lightsteelblue")


def spike_raster(
    spikes: xr.DataTree | SpikeRaster,
    chain: int = 0,
    *,
    window: tuple[float, float] | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw a mark for each spike, time to the right and one row for each neuron.

    Parameters
    ----------
    spikes : DataTree or SpikeRaster
        From ``pm.sample`` with ``NeuralSampling(..., record_spikes=True)``, or from `diagnostics.spike_raster`.
    chain : int
        The chain of a DataTree, by its position.
    window : (float, float), optional
        The first and the last time to draw, in steps, or in continuous time in refractory periods; all if not given.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if not given.
    **kwargs
        Passed on to :meth:`matplotlib.axes.Axes.plot`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If no spikes were recorded; if `window` is empty.
    """
    from matplotlib.ticker import MaxNLocator

    from pm_neural.diagnostics.spikes import SpikeRaster
    from pm_neural.diagnostics.spikes import spike_raster as read_spikes

    raster = spikes if isinstance(spikes, SpikeRaster) else read_spikes(spikes, chain)
    start, stop = (0.0, raster.duration) if window is None else window
    if not start < stop:
        raise ValueError(f"window must be (start, stop) with start < stop, got {window!r}")
    seen = (raster.times >= start) & (raster.times <= stop)
    ax = _axes(ax)
    style: dict[str, Any] = {"linestyle": "none", "marker": "|", "color": "black", "markersize": 6} | kwargs
    ax.plot(raster.times[seen], raster.neurons[seen], **style)
    ax.set(xlim=(start, stop), ylim=(raster.n_neurons - 0.5, -0.5), xlabel="time", ylabel="neuron")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def refractory_states(
    states: ArrayLike,
    potentials: ArrayLike | None = None,
    *,
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """Shade the times at which neurons are on, and draw their membrane potentials over them.

    Parameters
    ----------
    states : array_like, shape (n_times, n_neurons)
        0 or 1.
    potentials : array_like, shape (n_times, n_neurons), optional
        The logits u; all on one scale, the largest ``|u|`` as high as a row, and a thin line at u = 0.
    labels : sequence of str, optional
        Names of the neurons; numbers if not given.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if not given.
    **kwargs
        Passed on to :meth:`matplotlib.axes.Axes.plot`, for the potentials.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the arrays do not fit together, or `states` holds something else than 0 and 1.
    """
    on = np.asarray(states)
    if on.ndim != 2 or on.size == 0:
        raise ValueError(f"states must have shape (n_times, n_neurons), got {on.shape}")
    if not np.isin(on, (0, 1)).all():
        raise ValueError(f"states must be 0 or 1 everywhere, got values {np.unique(on)[:5]}")
    n_times, n_neurons = on.shape
    if labels is not None and len(labels) != n_neurons:
        raise ValueError(f"labels must name {n_neurons} neurons, got {len(labels)}")
    ax = _axes(ax)
    time = np.arange(n_times)
    edges = (time[:, None] + [-0.5, 0.5]).ravel()  # of each time, so that a single one has a width
    for neuron in range(n_neurons):
        shaded = np.repeat(on[:, neuron] == 1, 2)
        ax.fill_between(edges, neuron - 0.4, neuron + 0.4, where=shaded, color="lightsteelblue", linewidth=0)
    if potentials is not None:
        u = np.asarray(potentials, dtype=float)
        if u.shape != on.shape:
            raise ValueError(f"potentials must have the shape {on.shape} of states, got {u.shape}")
        scale = 0.4 / (np.abs(u[np.isfinite(u)]).max(initial=0.0) or 1.0)
        ax.hlines(range(n_neurons), -0.5, n_times - 0.5, color="gray", linewidth=0.5)
        style: dict[str, Any] = {"color": "black", "linewidth": 0.8} | kwargs
        # Rows are counted downwards, potentials go up.
        ax.plot(time, np.arange(n_neurons) - scale * u, **style)
    ax.set(xlim=(-0.5, n_times - 0.5), ylim=(n_neurons - 0.5, -0.5), xlabel="time", ylabel="neuron")
    every = 1 if labels is not None else math.ceil(n_neurons / _MOST_NUMBERED_ROWS)
    rows = range(0, n_neurons, every)
    ax.set_yticks(rows, labels if labels is not None else [str(row) for row in rows])
    return ax


def state_probabilities(
    laws: Mapping[str, StateProbabilities | ArrayLike],
    *,
    n_largest: int = 32,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw the probabilities of joint states of units as bars, those of several laws side by side.

    Parameters
    ----------
    laws : dict
        By the names for the legend, `StateProbabilities` or arrays of shape (n_states,), in the order of
        ``itertools.product``. The first gives the order of the bars, the most probable state first. Bars of sampled
        ones have their standard error.
    n_largest : int
        How many states to draw, at most.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if not given.
    **kwargs
        Passed on to :meth:`matplotlib.axes.Axes.bar`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If there are no laws, if they are of different lengths, or not of 2ⁿ states; if `n_largest` is below 1.
    """
    if not laws:
        raise ValueError("laws must hold at least one law, got none")
    if n_largest < 1:
        raise ValueError(f"n_largest must be at least 1, got {n_largest}")
    values = {name: np.asarray(getattr(law, "probabilities", law), dtype=float) for name, law in laws.items()}
    first = next(iter(values.values()))
    n_units = first.size.bit_length() - 1
    if first.ndim != 1 or not first.size or first.size != 1 << n_units:
        raise ValueError(f"laws must be of all 2**n states of n units, got the shape {first.shape}")
    for name, p in values.items():
        if p.shape != first.shape:
            raise ValueError(f"laws must have the same states, got {p.shape} for {name!r} and {first.shape} before")
        if not (np.isfinite(p) & (p >= 0)).all():
            raise ValueError(f"laws must hold probabilities, finite and not negative; those of {name!r} are not")
    order = np.argsort(-first, kind="stable")[:n_largest]
    ax = _axes(ax)
    width = 0.8 / len(values)
    tops = np.zeros(order.size)
    for k, (name, p) in enumerate(values.items()):
        errors = getattr(laws[name], "standard_errors", None)
        tops = np.maximum(tops, p[order] if errors is None else p[order] + errors[order])
        style = {"label": name, "error_kw": {"linewidth": 0.8}} | kwargs
        places = np.arange(order.size) + (k - (len(values) - 1) / 2) * width
        ax.bar(places, p[order], width, yerr=None if errors is None else errors[order], **style)
    ax.set_xticks(range(order.size), [f"{state:0{n_units}b}" for state in order], rotation=90)
    ax.set(xlim=(-0.6, order.size - 0.4), xlabel="state", ylabel="probability")
    _add_legend_above(ax, tops)
    return ax


def _add_legend_above(ax: Axes, tops: np.ndarray) -> None:
    """Put a legend into the upper right corner, above the bars there; `tops` are those of the ticks, 0, 1, 2, …."""
    legend, frame = ax.legend(loc="upper right").get_window_extent(), ax.get_window_extent()
    width = _LEGEND_MARGIN * legend.width / frame.width
    height = min(_LEGEND_MARGIN * legend.height / frame.height, _TALLEST_LEGEND)
    below = tops[int((1 - min(width, 1)) * tops.size) :]
    ax.set_ylim(top=max(ax.get_ylim()[1], below.max() / (1 - height)))


def _axes(ax: Axes | None) -> Axes:
    """Return the axes given, or those of a new figure."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(layout="constrained")
    return ax


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

    ax = _axes(ax)
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
