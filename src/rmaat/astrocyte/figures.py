"""Matplotlib figures of simulations, increments and retention factors.

`write` saves them. Time is in seconds; all other quantities have no unit.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmaat.astrocyte.increments import Increments, retention_increments
from rmaat.astrocyte.memory import memory_shares
from rmaat.astrocyte.model import MacroModel
from rmaat.astrocyte.nonlinearity import Array
from rmaat.astrocyte.retention import retention_factors
from rmaat.astrocyte.simulate import Simulation
from rmaat.astrocyte.sweep import SweepPoint
from rmaat.machine.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "lines.linewidth": 1.8,
    "figure.dpi": 130,
    "mathtext.fontset": "dejavusans",
}
DRIVEN = "#f7e7c1"
PRE, POST, MEAN, ACCENT = "#1b6ca8", "#c0392b", "#222222", "#d95f02"
TOTALS = (2, 4, 8, 16)
"""Numbers of segments T in the figures, which are the published ones [P]."""
UNITS = {"tau": "s", "cycle": "s"}
SYMBOLS = {
    "tau_neuron": r"$\tau_n$",
    "tau_synapse": r"$\tau_s$",
    "tau_short": r"$\tau_p^s$",
    "tau_long": r"$\tau_p^l$",
    "decay_neuron": r"$\lambda$",
    "decay_synapse": r"$\beta$",
    "decay_short": r"$\gamma^s$",
    "decay_long": r"$\gamma^l$",
    "cycle": r"$\tau_\mathrm{cycle}$",
    "amplitude": "$b$",
    "input_short": "$d$",
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style of all figures; needs no display."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def write(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG with a palette of 256 colours.

    The palette reduces the file to a third of its size. Flat colours lose nothing by it.
    """
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with Image.open(buffer) as image, replacing(path) as file:
        image.convert("RGB").quantize(256).save(file, format="PNG", optimize=True)


def _subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> "tuple[Figure, NDArray[Any]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _shade(axis: "Axes", simulation: Simulation, start: float) -> None:
    """Shade the times at which the drive is on; the axis shows the time since `start`."""
    on = np.abs(simulation.drive).max(axis=1) > 0
    time = simulation.time - start
    switches = np.flatnonzero(np.diff(on, prepend=False, append=False))
    for begin, end in switches.reshape(-1, 2):
        axis.axvspan(max(0.0, time[begin]), time[min(end, len(time) - 1)], color=DRIVEN, lw=0, zorder=0)
    axis.set_xlim(0, time[-1])


def _last_cycle(simulation: Simulation) -> "NDArray[np.bool_]":
    # The margin includes the first time of the cycle in spite of rounding.
    cycle = simulation.model.cycle
    return simulation.time >= simulation.time[-1] - cycle * (1 + 1e-9)


def traces(simulation: Simulation) -> "Figure":
    """Draw neurons, synapses, p^s and p^l over all cycles and over the last cycle.

    Each neuron and each synapse has one line.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    with styled():
        figure, axes = _subplots(4, 2, (13, 9), sharex="col", width_ratios=[3, 1.15])
        summed_coupling = simulation.model.coupling_matrix.sum(axis=1)
        differs = np.ptp(summed_coupling) > 1e-9
        lowest = summed_coupling.min()
        norm = Normalize(lowest, summed_coupling.max() if differs else lowest + 1)
        colour_map = _dark_part("viridis")
        synapses = colour_map(norm(summed_coupling))
        neurons = [PRE] * simulation.model.num_pre + [POST] * simulation.model.num_post
        both = np.concatenate([simulation.pre, simulation.post], axis=1)
        panels = (
            (both, neurons, "activity", "Neurons"),
            (simulation.synapse, synapses, "$s_{ij}$", "Synapses"),
            (simulation.short_term, synapses, "$p^s_{ij}$", "Short-term process of the astrocyte"),
            (simulation.long_term, synapses, "$p^l_{ij}$", "Long-term process of the astrocyte"),
        )
        windows: tuple[tuple[float, Any], ...] = (
            (0.0, slice(None)),
            (simulation.time[-1] - simulation.model.cycle, np.flatnonzero(_last_cycle(simulation))),
        )
        for row, (values, colours, symbol, title) in zip(axes, panels, strict=True):
            for axis, (start, times) in zip(row, windows, strict=True):
                lines = values.reshape(len(values), -1)[times].T
                for colour, line in zip(colours, lines, strict=True):
                    axis.plot(simulation.time[times] - start, line, color=colour, lw=1.2)
                _shade(axis, simulation, start)
            row[0].set(ylabel=symbol, title=title)
            row[0].set_ylim(min(0.0, values.min() * 1.05), None)
        axes[0, 1].set_title("Last cycle")
        axes[-1, 0].set_xlabel("time (s)")
        axes[-1, 1].set_xlabel("time in the cycle (s)")
        figure.align_ylabels(axes[:, 0])

        first = axes[0, 0]
        # Empty artists give the legend one entry per kind of line.
        first.plot([], [], color=PRE, label="presynaptic $x_i$")
        first.plot([], [], color=POST, label="postsynaptic $y_j$")
        first.fill_between([], [], color=DRIVEN, label="drive on")
        first.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=3, borderaxespad=0)
        if differs:
            scale = ScalarMappable(norm, colour_map)
            bar = figure.colorbar(scale, ax=list(axes[1:].flat), aspect=45, pad=0.01)
            bar.set_label("summed coupling that the synapse receives")
    return figure


def long_term(simulation: Simulation, increments: Increments) -> "Figure":
    """Draw p^l with its gains, the gains with their geometric tail, and the factors."""
    from matplotlib import colormaps

    model = simulation.model
    with styled():
        figure, axes = _subplots(1, 3, (15, 4.8))
        curve, gains, shares = axes[0]
        mean = simulation.long_term.mean(axis=(1, 2))
        cycles = round(simulation.time[-1] / model.cycle)
        ends = np.arange(cycles + 1) * model.cycle
        levels = np.interp(ends, simulation.time, mean)
        curve.plot(simulation.time, mean, color=MEAN)
        curve.vlines(ends[1:], levels[:-1], levels[1:], color=ACCENT, lw=3, label=r"gain $\Delta p_t$ of cycle $t$")
        curve.hlines(levels[:-1], ends[:-1], ends[1:], color=ACCENT, lw=0.8)
        top = np.exp(increments.log_sum)
        curve.axhline(top, color="0.45", lw=1.2, ls="--")
        above = {"xytext": (4, 4), "textcoords": "offset points", "color": "0.35", "fontsize": 11}
        curve.annotate(f"plateau, at cycle ends: {top:.3f}", (0, top), **above)
        curve.set(
            xlabel="time (s)",
            ylabel=r"$p^l$, mean over synapses",
            title="The long-term process saturates",
        )
        curve.set_ylim(0, max(float(mean.max()), float(top)) * 1.14)
        _shade(curve, simulation, 0.0)
        curve.legend(loc="lower right")

        steps = np.arange(1, cycles + 1)
        logs = increments.log(cycles)
        gains.semilogy(steps, np.exp(logs), "o", color=ACCENT, ms=7, label=r"simulated $\Delta p_t$")
        gains.semilogy(
            steps,
            np.exp(logs[-1] + increments.decay * (cycles - steps)),
            color="0.45",
            lw=1.2,
            ls="--",
            zorder=0,
            label=f"geometric, $e^{{-c}}$ a cycle, $c$ = {increments.decay:.3g}",
        )
        gains.set(xlabel="cycle $t$", ylabel=r"gain $\Delta p_t$, mean over synapses", title="Gains become geometric")
        gains.legend(loc="upper right")
        _whole_ticks(gains)

        for place, total in zip(np.linspace(0.0, 0.85, len(TOTALS)), TOTALS, strict=True):
            colour = colormaps["plasma"](place)
            index = np.arange(1, total + 1)
            shares.plot(index, increments.factors(total), "o-", color=colour, ms=6, label=f"$T$ = {total}")
            shares.plot(index, retention_factors(total, "plateau", model), "x:", color=colour, ms=6, lw=1.1)
        shares.plot([], [], "x:", color="0.3", label="closed form\n(plateau)")
        shares.set(
            xlabel="segment $t$", ylabel=r"retention factor RF$(t, T)$", title="The factors are shares of the gains"
        )
        shares.set_ylim(bottom=0)
        shares.legend(loc="upper right")
        _whole_ticks(shares)
    return figure


def _whole_ticks(axis: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))


def short_term_map(simulations: Sequence[tuple[str, Simulation]]) -> "Figure":
    """Draw the highest p^s and the course of p^s of each synapse in the last cycle.

    Args:
        simulations: title and simulation of each column.
    """
    from matplotlib.colors import Normalize

    with styled():
        width = 4.3 * len(simulations) + 1.2
        figure, axes = _subplots(2, len(simulations), (width, 7.8), height_ratios=[1.4, 1])
        peaks = [_peak(simulation) for _, simulation in simulations]
        norm = Normalize(min(map(np.min, peaks)), max(map(np.max, peaks)))
        columns = zip(axes.T, simulations, peaks, strict=True)
        for (peak_axis, course_axis), (name, simulation), peak in columns:
            image = peak_axis.imshow(peak, norm=norm, cmap="viridis")
            peak_axis.set(title=name, xlabel="postsynaptic neuron $j$")
            peak_axis.spines[:].set_visible(False)
            _label_cells(peak_axis, peak, norm)
            cycle = simulation.model.cycle
            begin = simulation.time[-1] - cycle
            last = _last_cycle(simulation)
            lines = simulation.short_term[last].reshape(int(last.sum()), -1)
            colours = image.cmap(norm(peak.ravel()))
            for colour, line in zip(colours, lines.T, strict=True):
                course_axis.plot(simulation.time[last] - begin, line, color=colour, lw=1.4)
            _shade(course_axis, simulation, begin)
            course_axis.set_xlabel("time in the last cycle (s)")
        top = max(axis.get_ylim()[1] for axis in axes[1])
        for axis in axes[1]:
            axis.set_ylim(min(0.0, *(other.get_ylim()[0] for other in axes[1])), top)
        axes[0, 0].set_ylabel("presynaptic neuron $i$")
        axes[1, 0].set_ylabel("$p^s_{ij}$, one line a synapse")
        figure.colorbar(image, ax=list(axes.flat), label="highest $p^s_{ij}$ in the last cycle", aspect=40, pad=0.015)
    return figure


def _peak(simulation: Simulation) -> Array:
    peak: Array = simulation.short_term[_last_cycle(simulation)].max(axis=0)
    return peak


def _label_cells(axis: "Axes", values: Array, norm: "Normalize") -> None:
    rows, columns = values.shape
    axis.set_xticks(range(columns)) if columns <= 8 else _whole_ticks(axis)
    if rows <= 8:
        axis.set_yticks(range(rows))
    if max(rows, columns) > 5:
        return
    for (row, column), value in np.ndenumerate(values):
        shade = "white" if norm(value) < 0.6 else "black"
        axis.text(column, row, f"{value:.3f}", ha="center", va="center", color=shade)


def parameter_sweep(name: str, points: Sequence[SweepPoint], total: int) -> "Figure":
    """Draw the factors of T = `total` segments against the swept parameter and against the segment.

    Values without retention factors are hatched.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = np.array([point.value for point in points])
    factors = np.array(
        [np.full(total, np.nan) if point.increments is None else point.increments.factors(total) for point in points]
    )
    unit = UNITS.get(name.partition("_")[0], "")
    label = f"{name} {SYMBOLS.get(name, '')} {f'({unit})' if unit else ''}".strip().replace("  ", " ")
    with styled():
        figure, axes = _subplots(1, 2, (13, 5))
        against_value, against_segment = axes[0]
        for segment in range(total):
            colour = _dark_part("plasma")(segment / max(1, total - 1))
            against_value.plot(values, factors[:, segment], "o-", color=colour, ms=5)
        without_factors = np.isnan(factors[:, 0])
        edges = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])
        for index in np.flatnonzero(without_factors):
            against_value.axvspan(edges[index], edges[index + 1], fc="0.93", ec="0.75", hatch="//", lw=0)
        if without_factors.any():
            hatched = {"fc": "0.93", "ec": "0.75", "hatch": "//", "lw": 0}
            against_value.fill_between([], [], label="no retention factors", **hatched)
        against_value.axhline(1 / total, color="0.4", lw=1.2, ls=":", label="$1/T$, equal shares")
        figure.legend(loc="outside lower left", ncols=2)
        against_value.set(xlabel=label, ylabel=rf"retention factor RF$(t, {total})$", title="Each segment's factor")
        against_value.set_ylim(bottom=0)
        segments = ScalarMappable(Normalize(1, max(2, total)), _dark_part("plasma"))
        figure.colorbar(segments, ax=against_value, label="segment $t$")

        norm = Normalize(values.min(), values.max() if np.ptp(values) else values.min() + 1)
        colour_map = _dark_part("viridis")
        for value, row in zip(values, factors, strict=True):
            colour = colour_map(norm(value))
            against_segment.plot(range(1, total + 1), row, "o-", color=colour, ms=5)
        against_segment.set(
            xlabel="segment $t$",
            ylabel=rf"RF$(t, {total})$",
            title="Schedule of each value",
        )
        against_segment.set_ylim(bottom=0)
        _whole_ticks(against_segment)
        figure.colorbar(ScalarMappable(norm, colour_map), ax=against_segment, label=label)
    return figure


def _dark_part(name: str) -> "ListedColormap":
    """Return a named colour map without its last eighth, which is too pale for lines."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps[name](np.linspace(0, 0.88, 256)))


def memory(model: MacroModel, total: int = 16, longest: int = 512) -> "Figure":
    """Draw each segment's share of the last memory, and the factors of `ltp` in long sequences.

    Args:
        model: macro model of `ltp`.
        total: number of segments T of the shares.
        longest: largest number of segments T of the factors.
    """
    schedules = (
        ("none", MEAN, "none: RF = 1"),
        ("constant", PRE, "constant: RF = 0.5"),
        ("ltp", ACCENT, "ltp"),
    )
    with styled():
        figure, axes = _subplots(1, 2, (13, 5))
        shares, long = axes[0]
        for schedule, colour, label in schedules:
            values = memory_shares(retention_factors(total, schedule, model))
            shares.semilogy(range(1, total + 1), values, "o-", color=colour, label=label, ms=6)
        shares.set(
            xlabel="segment $t$",
            ylabel="share of the last memory's variance",
            title=f"Share of each segment in the memory, $T$ = {total}",
        )
        shares.legend(loc="lower right")
        _whole_ticks(shares)

        increments = retention_increments(model)
        totals = np.unique(np.geomspace(2, longest, 40).astype(int))
        factors = [increments.factors(int(count)) for count in totals]
        for name, place, colour in (("1", 0.0, PRE), ("T/2", 0.5, ACCENT), ("T", 1.0, POST)):
            values = np.array([row[max(0, round(place * len(row)) - 1)] for row in factors])
            long.loglog(totals, values, color=colour, label=f"segment $t = {name}$")
        long.loglog(totals, 1 / totals, color="0.4", lw=1.2, ls=":", label="$1/T$, equal shares")
        tiny = float(np.finfo(np.float32).tiny)
        long.axhline(tiny, color="0.4", lw=1, ls="--")
        note = {"xytext": (0, 4), "textcoords": "offset points", "color": "0.35", "fontsize": 11}
        long.annotate("float32's smallest normal number", (totals[0], tiny), **note)
        long.set(
            xlabel="number of segments $T$",
            ylabel="retention factor RF$(t, T)$, ltp",
            title="Late factors vanish in long sequences",
            ylim=(tiny / 1e6, 10),
        )
        long.legend(loc="lower left", bbox_to_anchor=(0, 0.22))
    return figure
