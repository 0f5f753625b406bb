"""Many chains at once: what follows the matrix product, in one pass over memory.

The caller computes the fields of a layer of all chains, for example ``np.matmul(v, W, out=field);
field += b``. The functions here then turn fields into samples: sigmoid, random number and
comparison in registers, each field read once and each sample written once. Nothing is allocated.
"""

from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.random import VECTOR_BYTES, close_stream, open_stream
from step_methods.kernels.vectors.simd import as_vector_of, load, load_first, store, store_first
from step_methods.kernels.vectors.units import decide, sigmoid, softplus_sum


@kernel
def sample_units(field, state, out):
    """Sample every unit given its field.

    Parameters
    ----------
    field : numpy.ndarray
        (n_chains, n_units), C-contiguous, float32 or float64.
    state : numpy.ndarray
        From `step_methods.kernels.vectors.random.seed_stream`; advanced in place.
    out : numpy.ndarray
        C-contiguous, of the shape of `field`; float32, float64, int8 or uint8. Becomes 1 with
        probability sigmoid(field), else 0. It may be `field` itself.
    """
    fields, samples = field.reshape(-1), out.reshape(-1)
    lanes = VECTOR_BYTES // fields.itemsize
    whole = fields.size - fields.size % lanes
    stream = open_stream(state)
    for start in range(0, whole, lanes):
        ones, stream = decide(load(fields, start, VECTOR_BYTES), stream, start, lanes)
        store(samples, start, as_vector_of(ones, samples))
    if whole < fields.size:
        rest = fields.size - whole
        last = load_first(fields, whole, VECTOR_BYTES, rest, 0.0)
        ones, stream = decide(last, stream, whole, rest)
        store_first(samples, whole, as_vector_of(ones, samples), rest)
    close_stream(stream)


@kernel
def sample_units_with_mean(field, state, out, mean):
    """Sample every unit given its field, and keep the probabilities.

    Parameters
    ----------
    field, state, out
        As in `sample_units`, with the same samples.
    mean : numpy.ndarray
        Of the shape and type of `field`, C-contiguous. Becomes sigmoid(field). It may be `field`,
        if `out` is not.
    """
    fields, samples, means = field.reshape(-1), out.reshape(-1), mean.reshape(-1)
    lanes = VECTOR_BYTES // fields.itemsize
    whole = fields.size - fields.size % lanes
    stream = open_stream(state)
    for start in range(0, whole, lanes):
        vector = load(fields, start, VECTOR_BYTES)
        ones, stream = decide(vector, stream, start, lanes)
        store(samples, start, as_vector_of(ones, samples))
        store(means, start, sigmoid(vector))
    if whole < fields.size:
        rest = fields.size - whole
        vector = load_first(fields, whole, VECTOR_BYTES, rest, 0.0)
        ones, stream = decide(vector, stream, whole, rest)
        store_first(samples, whole, as_vector_of(ones, samples), rest)
        store_first(means, whole, sigmoid(vector), rest)
    close_stream(stream)


@kernel
def sigmoid_units(field, out):
    """Probability sigmoid(field) of every unit.

    Parameters
    ----------
    field : numpy.ndarray
        C-contiguous, of any shape, float32 or float64.
    out : numpy.ndarray
        Of the same shape and type, C-contiguous; it may be `field` itself.
    """
    fields, means = field.reshape(-1), out.reshape(-1)
    lanes = VECTOR_BYTES // fields.itemsize
    whole = fields.size - fields.size % lanes
    for start in range(0, whole, lanes):
        store(means, start, sigmoid(load(fields, start, VECTOR_BYTES)))
    if whole < fields.size:
        rest = fields.size - whole
        last = load_first(fields, whole, VECTOR_BYTES, rest, 0.0)
        store_first(means, whole, sigmoid(last), rest)


@kernel
def softplus_sums(field, out):
    """Sum of log(1 + exp(field)) over the units of every chain, for free energies.

    Parameters
    ----------
    field : numpy.ndarray
        (n_chains, n_units), C-contiguous, float32 or float64.
    out : numpy.ndarray
        (n_chains,), float32 or float64. The error of a sum is about n_units times the rounding
        error of the type of `field`, in absolute terms.
    """
    fields = field.reshape(-1)
    n_units = field.shape[1]
    for chain in range(field.shape[0]):
        out[chain] = softplus_sum(fields, chain * n_units, n_units)
