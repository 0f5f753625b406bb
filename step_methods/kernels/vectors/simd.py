"""Fixed-width vectors for numba kernels.

Numba leaves vectorization to LLVM's loop passes, which give up on the loops that matter here:
in-place updates (they cannot prove that input and output do not overlap), generators whose state
should stay in registers, and sums over rows picked by an index. A `Vector` is an LLVM vector held
in registers, so that a kernel says directly what is done side by side. LLVM maps it to whatever the
processor has (AVX-512, AVX2, SSE2, NEON).

Arithmetic, bitwise and comparison operators work element by element and broadcast scalars::

    x = load(field, start, 128)              # 32 float32 or 16 float64
    store(out, start, x * x + 1.0)

A comparison gives a vector of booleans, a *mask*.
"""

import operator

from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import (
    intrinsic,
    lower_builtin,
    models,
    register_model,
    type_callable,
)

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"


class Vector(types.Type):
    """Numba type of ``lanes`` scalars of one type, processed side by side."""

    def __init__(self, dtype, lanes):
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"Vector({dtype} x {lanes})")

    @property
    def element(self):
        """LLVM type of one element."""
        if self.dtype == types.boolean:
            return ir.IntType(1)
        if isinstance(self.dtype, types.Integer):
            return ir.IntType(self.dtype.bitwidth)
        return ir.FloatType() if self.dtype == types.float32 else ir.DoubleType()

    @property
    def llvm(self):
        """LLVM type of the whole vector."""
        return ir.VectorType(self.element, self.lanes)

    @property
    def is_float(self):
        """Whether the elements are floats."""
        return isinstance(self.dtype, types.Float)

    @property
    def mangled(self):
        """Suffix of the overloaded LLVM intrinsics that take this type."""
        return f"v{self.lanes}{'f' if self.is_float else 'i'}{self.dtype.bitwidth}"


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, fe_type.llvm)


def _splat(builder, scalar, vector):
    lane = builder.insert_element(ir.Constant(vector.llvm, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    picks = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
    return builder.shuffle_vector(lane, ir.Constant(vector.llvm, ir.Undefined), picks)


def _broadcast(context, builder, value, ty, vector):
    if isinstance(ty, Vector):
        return value
    return _splat(builder, context.cast(builder, value, ty, vector.dtype), vector)


def _data(context, builder, ty, value):
    """First element of an array; a pointer is already that."""
    if isinstance(ty, types.CPointer):
        return value
    if ty.layout != "C":
        raise TypingError(f"kernels need C-contiguous arrays, got {ty}")
    return context.make_array(ty)(context, builder, value).data


def _pointer(context, builder, array_type, array, index, llvm_type):
    data = _data(context, builder, array_type, array)
    return builder.bitcast(builder.gep(data, [index]), llvm_type.as_pointer())


def _function(builder, name, result, arguments):
    return builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


# --- operators ------------------------------------------------------------------------------------------------------


def _register_operator(op, emit, *, compares=False):
    @type_callable(op)
    def type_operator(context):
        def typer(left, right):
            vectors = [ty for ty in (left, right) if isinstance(ty, Vector)]
            if not vectors or len(set(vectors)) > 1:
                return None
            if not all(isinstance(ty, Vector | types.Number) for ty in (left, right)):
                return None
            return Vector(types.boolean, vectors[0].lanes) if compares else vectors[0]

        return typer

    def lower_operator(context, builder, sig, args):
        vector = next(ty for ty in sig.args if isinstance(ty, Vector))
        left, right = (
            _broadcast(context, builder, value, ty, vector) for value, ty in zip(args, sig.args, strict=True)
        )
        return emit(builder, vector, left, right)

    for signature in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, *signature)(lower_operator)


def _arithmetic(float_instruction, integer_instruction):
    def emit(builder, vector, left, right):
        if vector.is_float:
            # "contract" lets LLVM fuse a product and a sum; it reorders nothing.
            return getattr(builder, float_instruction)(left, right, flags=("contract",))
        return getattr(builder, integer_instruction)(left, right)

    return emit


def _bitwise(instruction):
    return lambda builder, vector, left, right: getattr(builder, instruction)(left, right)


def _comparison(sign):
    def emit(builder, vector, left, right):
        if vector.is_float:
            return builder.fcmp_ordered(sign, left, right)
        compare = builder.icmp_signed if vector.dtype.signed else builder.icmp_unsigned
        return compare(sign, left, right)

    return emit


_register_operator(operator.add, _arithmetic("fadd", "add"))
_register_operator(operator.sub, _arithmetic("fsub", "sub"))
_register_operator(operator.mul, _arithmetic("fmul", "mul"))
_register_operator(operator.truediv, _arithmetic("fdiv", "udiv"))
_register_operator(operator.and_, _bitwise("and_"))
_register_operator(operator.or_, _bitwise("or_"))
_register_operator(operator.xor, _bitwise("xor"))
_register_operator(operator.lshift, _bitwise("shl"))
_register_operator(operator.rshift, _bitwise("lshr"))
_register_operator(operator.lt, _comparison("<"), compares=True)
_register_operator(operator.ge, _comparison(">="), compares=True)
_register_operator(operator.ne, _comparison("!="), compares=True)


# --- memory ---------------------------------------------------------------------------------------------------------


@intrinsic
def pointer_to(typingctx, array, index, like):
    """Address of element `index` of an array or pointer, taken as one of the type of `like`.

    Every other intrinsic here takes a pointer for an array. Unlike an array it owns no reference to
    its memory, so a loop that carries one counts none.
    """
    pointer = types.CPointer(like.dtype)

    def codegen(context, builder, sig, args):
        return _pointer(context, builder, array, args[0], args[1], pointer_type.pointee)

    pointer_type = ir.PointerType(Vector(like.dtype, 1).element)
    return pointer(array, types.intp, like), codegen


@intrinsic(prefer_literal=True)
def load(typingctx, array, index, n_bytes):
    """Elements ``array[index:]`` of a contiguous array, as many as fit into `n_bytes` (a constant)."""
    vector = Vector(array.dtype, n_bytes.literal_value * 8 // array.dtype.bitwidth)

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, array, args[0], args[1], vector.llvm)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp, n_bytes), codegen


@intrinsic
def store(typingctx, array, index, value):
    """Write a vector to ``array[index:]``; both have the same element type."""

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, array, args[0], args[1], value.llvm)
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, value), codegen


def _first_lanes(builder, count, vector):
    """Mask of the first `count` lanes."""
    ids = ir.Constant(ir.VectorType(ir.IntType(64), vector.lanes), list(range(vector.lanes)))
    return builder.icmp_signed("<", ids, _splat(builder, count, Vector(types.int64, vector.lanes)))


def _masked_load(builder, vector, pointer, count, others):
    mask = _first_lanes(builder, count, vector)
    function = _function(
        builder,
        f"llvm.masked.load.{vector.mangled}.p0",
        vector.llvm,
        [pointer.type, ir.IntType(32), mask.type, vector.llvm],
    )
    align = ir.Constant(ir.IntType(32), vector.dtype.bitwidth // 8)
    return builder.call(function, [pointer, align, mask, others])


@intrinsic(prefer_literal=True)
def load_first(typingctx, array, index, n_bytes, count, fill):
    """As `load`, but only the first `count` lanes are read; the others are `fill`."""
    vector = Vector(array.dtype, n_bytes.literal_value * 8 // array.dtype.bitwidth)

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, array, args[0], args[1], vector.llvm)
        others = _broadcast(context, builder, args[4], fill, vector)
        return _masked_load(builder, vector, pointer, args[3], others)

    return vector(array, types.intp, n_bytes, types.intp, fill), codegen


@intrinsic
def load_mask(typingctx, array, index, like, count):
    """Mask of the nonzero ones of the first `count` elements of ``array[index:]``, in as many lanes as `like` has."""
    vector = Vector(array.dtype, like.lanes)
    mask = Vector(types.boolean, like.lanes)

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, array, args[0], args[1], vector.llvm)
        zero = ir.Constant(vector.llvm, None)
        values = _masked_load(builder, vector, pointer, args[3], zero)
        compare = builder.fcmp_unordered if vector.is_float else builder.icmp_unsigned
        return compare("!=", values, zero)

    return mask(array, types.intp, like, types.intp), codegen


@intrinsic
def store_first(typingctx, array, index, value, count):
    """As `store`, but only the first `count` lanes are written."""

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, array, args[0], args[1], value.llvm)
        mask = _first_lanes(builder, args[3], value)
        function = _function(
            builder,
            f"llvm.masked.store.{value.mangled}.p0",
            ir.VoidType(),
            [value.llvm, pointer.type, ir.IntType(32), mask.type],
        )
        align = ir.Constant(ir.IntType(32), array.dtype.bitwidth // 8)
        builder.call(function, [args[2], pointer, align, mask])
        return context.get_dummy_value()

    return types.none(array, types.intp, value, types.intp), codegen


@intrinsic
def load_packed(typingctx, words, index, like):
    """Mask of the bits from number `index` on in packed words; `index` is a multiple of its lanes, 8 at least."""
    mask = Vector(types.boolean, like.lanes)

    def codegen(context, builder, sig, args):
        lane_count = ir.Constant(ir.IntType(64), mask.lanes)
        data = _data(context, builder, words, args[0])
        packed = builder.bitcast(data, ir.IntType(mask.lanes).as_pointer())
        address = builder.gep(packed, [builder.sdiv(args[1], lane_count)])
        return builder.bitcast(builder.load(address), mask.llvm)

    return mask(words, types.intp, like), codegen


@intrinsic
def store_packed(typingctx, words, index, mask):
    """Write a mask to packed words, from bit number `index` on; `index` is a multiple of its lanes, 8 at least."""

    def codegen(context, builder, sig, args):
        lane_count = ir.Constant(ir.IntType(64), mask.lanes)
        data = _data(context, builder, words, args[0])
        packed = builder.bitcast(data, ir.IntType(mask.lanes).as_pointer())
        address = builder.gep(packed, [builder.sdiv(args[1], lane_count)])
        builder.store(builder.bitcast(args[2], ir.IntType(mask.lanes)), address)
        return context.get_dummy_value()

    return types.none(words, types.intp, mask), codegen


@intrinsic
def prefetch(typingctx, pointer, index):
    """Ask for the cache line of ``pointer[index]``."""

    def codegen(context, builder, sig, args):
        flag = ir.IntType(32)
        address = _pointer(context, builder, pointer, args[0], args[1], ir.IntType(8))
        function = _function(builder, "llvm.prefetch.p0", ir.VoidType(), [address.type] + [flag] * 3)
        read, keep, data = (ir.Constant(flag, value) for value in (0, 3, 1))
        builder.call(function, [address, read, keep, data])
        return context.get_dummy_value()

    return types.none(pointer, types.intp), codegen


# --- conversions ----------------------------------------------------------------------------------------------------


@intrinsic
def as_vector_of(typingctx, value, array):
    """A mask as zeros and ones of the element type of `array`."""
    vector = Vector(array.dtype, value.lanes)

    def codegen(context, builder, sig, args):
        if vector.is_float:
            one = _splat(builder, ir.Constant(vector.element, 1.0), vector)
            return builder.select(args[0], one, ir.Constant(vector.llvm, None))
        return builder.zext(args[0], vector.llvm)

    return vector(value, array), codegen


@intrinsic
def reinterpret(typingctx, value, dtype):
    """The same bits read as elements of another type."""
    scalar = dtype.dtype
    bits = value.lanes * value.dtype.bitwidth
    vector = Vector(scalar, bits // scalar.bitwidth)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], vector.llvm)

    return vector(value, dtype), codegen


@intrinsic
def count_ones(typingctx, mask):
    """Number of lanes that are set."""

    def codegen(context, builder, sig, args):
        ones = builder.ctpop(builder.bitcast(args[0], ir.IntType(mask.lanes)))
        return ones if mask.lanes == 64 else builder.zext(ones, ir.IntType(64))

    return types.int64(mask), codegen


@intrinsic
def n_lanes(typingctx, value):
    """Number of elements of a vector."""

    def codegen(context, builder, sig, args):
        return ir.Constant(ir.IntType(64), value.lanes)

    return types.intp(value), codegen


@intrinsic
def to_float(typingctx, value):
    """Integers below 2**31 (of 32 bits) or 2**63 (of 64 bits) as floats of the same width."""
    vector = Vector(types.float32 if value.dtype.bitwidth == 32 else types.float64, value.lanes)

    def codegen(context, builder, sig, args):
        return builder.sitofp(args[0], vector.llvm)

    return vector(value), codegen


@intrinsic
def widen(typingctx, value):
    """Floats as float64."""
    vector = Vector(types.float64, value.lanes)

    def codegen(context, builder, sig, args):
        return args[0] if value == vector else builder.fpext(args[0], vector.llvm)

    return vector(value), codegen


@intrinsic
def join(typingctx, first, second):
    """The lanes of two vectors of one type in one."""
    vector = Vector(first.dtype, 2 * first.lanes)

    def codegen(context, builder, sig, args):
        order = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), list(range(vector.lanes)))
        return builder.shuffle_vector(args[0], args[1], order)

    return vector(first, second), codegen


@intrinsic
def mask_to_int(typingctx, mask):
    """A mask as an integer: bit i is lane i."""

    def codegen(context, builder, sig, args):
        packed = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return packed if mask.lanes == 64 else builder.zext(packed, ir.IntType(64))

    return types.uint64(mask), codegen


@intrinsic
def int_to_mask(typingctx, bits, like):
    """Bit i of an integer as lane i of a mask, as many lanes as `like` has."""
    mask = Vector(types.boolean, like.lanes)

    def codegen(context, builder, sig, args):
        packed = args[0]
        if mask.lanes < 64:
            packed = builder.trunc(packed, ir.IntType(mask.lanes))
        return builder.bitcast(packed, mask.llvm)

    return mask(types.uint64, like), codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """Number of the lowest bit that is set in an integer that is not zero."""

    def codegen(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


# --- a few functions ------------------------------------------------------------------------------------------------


@intrinsic
def clip(typingctx, value, low, high):
    """``min(max(value, low), high)`` of floats."""

    def codegen(context, builder, sig, args):
        x, low_value, high_value = args
        floor = _broadcast(context, builder, low_value, low, value)
        roof = _broadcast(context, builder, high_value, high, value)
        x = builder.select(builder.fcmp_ordered(">", x, floor), x, floor)
        return builder.select(builder.fcmp_ordered("<", x, roof), x, roof)

    return value(value, low, high), codegen


@intrinsic
def choose(typingctx, mask, value, other):
    """`value` where the mask is set, `other` (a scalar) elsewhere."""

    def codegen(context, builder, sig, args):
        return builder.select(args[0], args[1], _broadcast(context, builder, args[2], other, value))

    return value(mask, value, other), codegen


@intrinsic(prefer_literal=True)
def lane_numbers(typingctx, n_bytes):
    """0, 1, 2, ... as a vector of uint64 that fills `n_bytes` (a constant)."""
    vector = Vector(types.uint64, n_bytes.literal_value // 8)

    def codegen(context, builder, sig, args):
        return ir.Constant(vector.llvm, list(range(vector.lanes)))

    return vector(n_bytes), codegen


@intrinsic
def fill(typingctx, like, scalar):
    """A vector of the type of `like` with the same scalar everywhere."""

    def codegen(context, builder, sig, args):
        return _broadcast(context, builder, args[1], scalar, like)

    return like(like, scalar), codegen


@intrinsic
def rotate_left(typingctx, value, count):
    """Rotate every integer by `count` bits."""

    def codegen(context, builder, sig, args):
        name = f"llvm.fshl.{value.mangled}"
        function = _function(builder, name, value.llvm, [value.llvm] * 3)
        shift = _broadcast(context, builder, args[1], count, value)
        return builder.call(function, [args[0], args[0], shift])

    return value(value, count), codegen


@intrinsic
def seldom(typingctx, mask):
    """Whether any lane of a mask is set, with the hint that this hardly ever happens."""

    def codegen(context, builder, sig, args):
        packed = builder.bitcast(args[0], ir.IntType(mask.lanes))
        found = builder.icmp_unsigned("!=", packed, ir.Constant(packed.type, 0))
        bit = ir.IntType(1)
        expect = _function(builder, "llvm.expect.i1", bit, [bit, bit])
        return builder.call(expect, [found, ir.Constant(bit, 0)])

    return types.boolean(mask), codegen


@intrinsic
def absolute(typingctx, value):
    """Absolute value of floats."""

    def codegen(context, builder, sig, args):
        function = _function(builder, f"llvm.fabs.{value.mangled}", value.llvm, [value.llvm])
        return builder.call(function, args)

    return value(value), codegen


@intrinsic
def sqrt(typingctx, value):
    """Square root of floats."""

    def codegen(context, builder, sig, args):
        function = _function(builder, f"llvm.sqrt.{value.mangled}", value.llvm, [value.llvm])
        return builder.call(function, args)

    return value(value), codegen


def _reduction(name, start):
    """Combine the lanes of a vector of floats into one float64."""

    def reduction(typingctx, value):
        wide = Vector(types.float64, value.lanes)

        def codegen(context, builder, sig, args):
            double = ir.DoubleType()
            function = _function(
                builder,
                f"llvm.vector.reduce.{name}.{wide.mangled}",
                double,
                [double, wide.llvm],
            )
            lanes = args[0] if value == wide else builder.fpext(args[0], wide.llvm)
            # "reassoc" allows a tree of halves in place of a chain.
            return builder.call(function, [ir.Constant(double, start), lanes], fastmath=("reassoc",))

        return types.float64(value), codegen

    reduction.__doc__ = _reduction.__doc__
    return intrinsic(reduction)


total = _reduction("fadd", 0.0)
product = _reduction("fmul", 1.0)
