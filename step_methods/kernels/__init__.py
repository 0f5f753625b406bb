"""Numba kernels: arrays in, arrays out. They know nothing of PyMC, so each can be tested alone.

================= ==================================================================================================
`random`          a vectorized stream of random bits (xoshiro256+)
`units`           what happens to a vector of binary units, given their fields
`layers`          many chains at once, after the caller's matrix product
`rbm`             one chain of a restricted Boltzmann machine
`normal`          normal random numbers
`gaussian_rbm`    one chain of a restricted Boltzmann machine with Gaussian visible units, and one draw of it
`gaussian_chains` many chains of such a machine at once
`chain`           one draw of a restricted Boltzmann machine: old units in, new ones and their energy out
`pairwise`        one chain of a network with couplings between any units; `pairwise_lattice`, `pairwise_sparse` and
                  `pairwise_dense` are its three forms
`gaussian`        one chain of a Gaussian vector, block by block
`spiking`         one chain of a network of spiking neurons; `spiking_network`, `spiking_refractory`, `spiking_steps`
                  and `spiking_events` are its parts
`lif`             many runs of leaky integrate-and-fire neurons, and their gradient
`lif_sampling`    one run of noisy ones, with renewing synapses
`enumeration`     log Z of a restricted network and its gradient
`simd`            vectors in registers for numba
================= ==================================================================================================

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
