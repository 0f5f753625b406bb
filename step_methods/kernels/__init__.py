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

The page "How to write a kernel" of the documentation says what they have in common. A kernel that makes random
decisions comes twice, ``name`` and ``name_forced``, as two thin functions around one body: from the second, whose
decisions are given and which notes their probabilities, the exact transition matrix is computed.
"""
