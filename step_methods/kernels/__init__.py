"""Numba kernels: arrays in, arrays out. They know nothing of PyMC, so each can be tested alone.

======================= ============================================================================================
`vectors`
`vectors.simd`          vectors in registers for numba
`vectors.random`        a vectorized stream of random bits (xoshiro256+)
`vectors.normal`        normal random numbers
`vectors.noise`         the noise that a unit's field is compared with
`vectors.units`         what happens to a vector of binary units, given their fields
`vectors.jit`           compilation, and the cache on disk

`restricted`
`restricted.rbm`        one chain of a restricted Boltzmann machine
`restricted.draws`      one draw of it: old units in, new ones and their energy out
`restricted.layers`     many chains at once, after the caller's matrix product
`restricted.gaussian_rbm`
                        one chain of a machine with Gaussian visible units, and one draw of it
`restricted.gaussian_chains`
                        many chains of such a machine at once
`restricted.enumeration`
                        log Z of a restricted network and its gradient

`pairwise`
`pairwise.network`      one chain of a network with couplings between any units, in one of three forms:
                        `pairwise.lattice`, `pairwise.sparse` and `pairwise.dense`
`pairwise.units`        what the three have in common
`pairwise.gaussian`     one chain of a Gaussian vector, block by block

`spiking`
`spiking.network`       one chain of a network of spiking neurons
`spiking.couplings`     its couplings
`spiking.refractory`    its refractory periods
`spiking.steps`         in discrete time
`spiking.events`        in continuous time

`lif`
`lif.gradient`          many runs of leaky integrate-and-fire neurons, and their gradient
`lif.sampling`          one run of noisy ones, with renewing synapses
======================= ============================================================================================

How to write a kernel that can be certified
-------------------------------------------
A step method is certified by the exact transition matrix of the kernel that it runs. For this a kernel comes twice,
as two thin functions around one body:

- ``name(..., state)`` changes the units in place and draws from the stream `state` (`random.seed_stream`);
- ``name_forced(..., bits, probabilities)`` does the same, but takes its random decisions, in the order in which it
  makes them, from `bits` (uint8), writes to `probabilities` (float64) the probability with which each would have come
  out as 1, and returns how many decisions it made. Both arrays are at least as long as that.

The body makes every random decision by `units.decide`, whose argument `source` is a `random.Stream` in the one and a
`units.Forced` in the other. Both come from the same arithmetic, so a mistake in the body, in a field or in the sigmoid
shows in the matrix: started from state i, the decisions d lead to one state j, and

    T[i, j] = sum over all d that lead to j of the product of (p if d else 1 - p).

The number of decisions may depend on those already made; it is found by forcing bits and looking at what is returned. A
kernel with a random decision between more than two outcomes makes it from binary ones.

A kernel must be given contiguous arrays and checked parameters. Fields may be infinite (the unit is then certain), but
never NaN. Kernels allocate nothing and use one thread.
"""
