"""What may be said of a sample, and how it is shown."""
import math


def quantile(values, share):
    """The smallest value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def median_interval(values):
    """Where the median of what was sampled is with 95 % or more, whatever its distribution: from the k-th smallest to the
    k-th largest, by the binomial of n tosses. Fewer than 6 values have only the least and the most."""
    ordered, tosses = sorted(values), len(values)
    below, k = 0, 0
    while k < tosses // 2 and (below + math.comb(tosses, k)) * 40 <= 2**tosses:
        below += math.comb(tosses, k)
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[-k]


def table(rows, columns):
    """Rows are dicts; columns are (key, heading, format)."""
    cells = [[heading for _, heading, _ in columns]]
    for row in rows:
        cells.append([form.format(row[key]) if row.get(key) is not None else "-" for key, _, form in columns])
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = []
    for line in cells:
        first, *others = (text.ljust(widths[0]) if i == 0 else text.rjust(widths[i]) for i, text in enumerate(line))
        lines.append("  ".join([first, *others]))
    return "\n".join(lines)
