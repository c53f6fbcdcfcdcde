//! Fixed-point arithmetic exactly as TensorFlow Lite Micro's reference kernels do it (gemmlowp's definitions, double
//! rounding), so that outputs agree to the last bit. Nothing here may use a float at run time; floats only prepare.

/// A positive real factor as `multiplier * 2^(shift - 31)`, `multiplier` in `[2^30, 2^31)` or zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Multiplier {
    /// Significand.
    pub value: i32,
    /// Power of two; positive shifts left.
    pub shift: i32,
}

impl Multiplier {
    /// The nearest multiplier, rounding half away from zero; none if the factor is negative, not finite or too large.
    pub fn from_f64(factor: f64) -> Option<Self> {
        if factor == 0.0 {
            return Some(Multiplier::default());
        }
        if !(factor > 0.0 && factor.is_finite()) {
            return None;
        }
        let bits = factor.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i32;
        if exponent == 0 {
            return Some(Multiplier::default()); // subnormal: far below what 31 bits of shift can hold
        }
        let significand = (bits & ((1 << 52) - 1)) | (1 << 52);
        let mut value = (significand + (1 << 21)) >> 22;
        let mut shift = exponent - 1022;
        if value == 1 << 31 {
            value >>= 1;
            shift += 1;
        }
        if shift < -31 {
            return Some(Multiplier::default());
        }
        if shift > 30 { None } else { Some(Multiplier { value: value as i32, shift }) }
    }

    /// `x` times the factor, rounded twice.
    #[inline(always)]
    pub fn apply(self, x: i32) -> i32 {
        let left = self.shift.max(0);
        let right = (-self.shift).max(0);
        rounding_shift_right(doubling_high_mul(x.wrapping_shl(left as u32), self.value), right)
    }
}

/// gemmlowp's `SaturatingRoundingDoublingHighMul`.
#[inline(always)]
pub fn doubling_high_mul(a: i32, b: i32) -> i32 {
    if a == i32::MIN && b == i32::MIN {
        return i32::MAX;
    }
    // Rounding half up on 64 bits is what gemmlowp's sign-dependent nudge with truncation amounts to.
    ((i64::from(a) * i64::from(b) + (1 << 30)) >> 31) as i32
}

/// gemmlowp's `RoundingDivideByPOT`: half away from zero.
#[inline(always)]
pub fn rounding_shift_right(x: i32, exponent: i32) -> i32 {
    let exponent = exponent.clamp(0, 31) as u32;
    let mask = ((1u64 << exponent) - 1) as i32;
    let remainder = x & mask;
    let threshold = ((mask as u32) >> 1) as i32 + i32::from(x < 0);
    (x >> exponent) + i32::from(remainder > threshold)
}

fn saturating_shift_left(x: i32, exponent: u32) -> i32 {
    let threshold = (1i32 << (31 - exponent)) - 1;
    if x > threshold {
        i32::MAX
    } else if x < -threshold {
        i32::MIN
    } else {
        x << exponent
    }
}

fn exp_between_minus_quarter_and_zero(a: i32) -> i32 {
    const EXP_MINUS_EIGHTH: i32 = 1_895_147_668;
    const THIRD: i32 = 715_827_883;
    let x = a.wrapping_add(1 << 28);
    let x2 = doubling_high_mul(x, x);
    let x3 = doubling_high_mul(x2, x);
    let x4 = doubling_high_mul(x2, x2);
    let x4_over_4 = rounding_shift_right(x4, 2);
    let tail =
        rounding_shift_right(doubling_high_mul(x4_over_4.wrapping_add(x3), THIRD).wrapping_add(x2), 1).wrapping_add(x);
    EXP_MINUS_EIGHTH.wrapping_add(doubling_high_mul(EXP_MINUS_EIGHTH, tail))
}

/// `exp(a)` for `a <= 0` with `integer_bits` integer bits (at most 5); the result has none.
pub fn exp_on_negative(a: i32, integer_bits: u32) -> i32 {
    const FACTORS: [i32; 7] = [1_672_461_947, 1_302_514_674, 790_015_084, 290_630_308, 39_332_535, 720_401, 242];
    if a == 0 {
        return i32::MAX;
    }
    let fraction_bits = 31 - integer_bits;
    let quarter = 1i32 << (fraction_bits - 2);
    let below_quarter = (a & (quarter - 1)) - quarter;
    let mut result = exp_between_minus_quarter_and_zero(saturating_shift_left(below_quarter, integer_bits));
    let remainder = below_quarter.wrapping_sub(a);
    for (i, factor) in FACTORS.iter().enumerate() {
        let exponent = i as i32 - 2;
        if (integer_bits as i32) > exponent && remainder & (1 << (fraction_bits as i32 + exponent)) != 0 {
            result = doubling_high_mul(result, *factor);
        }
    }
    result
}

/// Newton-Raphson for `1 / ((1 + a) / 2)` with two integer bits.
fn reciprocal_of_half_one_plus(a: i32) -> i32 {
    const C48_OVER_17: i32 = 1_515_870_810;
    const MINUS_32_OVER_17: i32 = -1_010_580_540;
    let sum = i64::from(a) + i64::from(i32::MAX);
    let half = ((sum + if sum >= 0 { 1 } else { -1 }) / 2) as i32;
    let mut x = C48_OVER_17.wrapping_add(doubling_high_mul(half, MINUS_32_OVER_17));
    for _ in 0..3 {
        let rest = (1i32 << 29).wrapping_sub(doubling_high_mul(half, x));
        x = x.wrapping_add(saturating_shift_left(doubling_high_mul(x, rest), 2));
    }
    x
}

/// `1 / (1 + a)` for `a` in `(0, 1)`.
pub fn one_over_one_plus(a: i32) -> i32 {
    saturating_shift_left(reciprocal_of_half_one_plus(a), 1)
}

/// `(1 - a) / (1 + a)` for `a` in `(0, 1)`.
fn one_minus_over_one_plus(a: i32) -> i32 {
    saturating_shift_left(reciprocal_of_half_one_plus(a).wrapping_sub(1 << 29), 2)
}

/// `1 / (1 + exp(-a))` with 4 integer bits in, none out.
pub fn logistic(a: i32) -> i32 {
    if a == 0 {
        return 1 << 30;
    }
    let positive = one_over_one_plus(exp_on_negative(a.wrapping_abs().wrapping_neg(), 4));
    if a > 0 { positive } else { i32::MAX - positive }
}

/// `tanh(a)` with 4 integer bits in, none out.
pub fn tanh(a: i32) -> i32 {
    if a == 0 {
        return 0;
    }
    // Doubling the argument is taking its bits as five integer bits.
    let t = one_minus_over_one_plus(exp_on_negative(a.wrapping_abs().wrapping_neg(), 5));
    if a < 0 { -t } else { t }
}

/// `1 / x` for a sum of exponentials with 12 integer bits: the reciprocal's bits and how far they are over one.
pub fn reciprocal_of_sum(x: i32) -> (i32, i32) {
    let headroom = (x as u32).leading_zeros();
    let minus_one = (x as u32).wrapping_shl(headroom).wrapping_sub(1 << 31) as i32;
    (one_over_one_plus(minus_one), 12 - headroom as i32)
}

/// The largest input that a fixed-point function can take after its input was scaled by `2^left_shift`.
pub fn input_radius(integer_bits: u32, left_shift: i32) -> i32 {
    let full = ((1i64 << integer_bits) - 1) << (31 - integer_bits);
    let radius = if left_shift >= 0 { full >> left_shift.min(62) } else { full << (-left_shift).min(20) };
    radius.min(i64::from(i32::MAX)) as i32
}

/// Rounds half away from zero, saturating at the bounds of `i32`.
pub fn round(x: f32) -> i32 {
    let truncated = x as i32;
    if !(-8_388_608.0..8_388_608.0).contains(&x) {
        return truncated;
    }
    let rest = x - truncated as f32;
    if rest >= 0.5 {
        truncated + 1
    } else if rest <= -0.5 {
        truncated - 1
    } else {
        truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplier_of_powers_of_two_and_their_neighbours() {
        assert_eq!(Multiplier::from_f64(1.0), Some(Multiplier { value: 1 << 30, shift: 1 }));
        assert_eq!(Multiplier::from_f64(0.5), Some(Multiplier { value: 1 << 30, shift: 0 }));
        assert_eq!(Multiplier::from_f64(1.0 - f64::EPSILON / 2.0), Some(Multiplier { value: 1 << 30, shift: 1 }));
        assert_eq!(Multiplier::from_f64(1e-12), Some(Multiplier::default()));
        assert_eq!(Multiplier::from_f64(-1.0), None);
        assert_eq!(Multiplier::from_f64(f64::NAN), None);
    }

    #[test]
    fn shifts_round_half_away_from_zero() {
        for (x, e, want) in
            [(5, 1, 3), (-5, 1, -3), (4, 3, 1), (-4, 3, -1), (3, 3, 0), (-3, 3, 0), (7, 0, 7), (i32::MIN, 31, -1)]
        {
            assert_eq!(rounding_shift_right(x, e), want, "{x} >> {e}");
        }
    }

    /// The definition with gemmlowp's nudge and truncating division.
    #[test]
    fn high_mul_is_gemmlowps() {
        let samples = [i32::MIN, i32::MIN + 1, -1_000_000_007, -3, -1, 0, 1, 2, 3, 65_537, 1_000_000_007, i32::MAX];
        for a in samples {
            for b in samples {
                let ab = i64::from(a) * i64::from(b);
                let nudge = if ab >= 0 { 1 << 30 } else { 1 - (1 << 30) };
                let want = if a == i32::MIN && b == i32::MIN { i32::MAX } else { ((ab + nudge) / (1i64 << 31)) as i32 };
                assert_eq!(doubling_high_mul(a, b), want, "{a} * {b}");
            }
        }
    }

    #[test]
    fn fixed_point_functions_follow_the_real_ones() {
        for i in -160..=160 {
            let x = f64::from(i) / 10.0;
            let raw = (x * f64::from(1u32 << 27)).clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32;
            let unit = f64::from(1u32 << 31);
            assert!((f64::from(logistic(raw)) / unit - 1.0 / (1.0 + (-x).exp())).abs() < 1e-6, "logistic {x}");
            assert!((f64::from(tanh(raw)) / unit - x.tanh()).abs() < 1e-6, "tanh {x}");
        }
    }

    #[test]
    fn rounding_floats() {
        for (x, want) in
            [(0.5, 1), (-0.5, -1), (0.499_999_97, 0), (2.5, 3), (-2.49, -2), (1e20, i32::MAX), (f32::NAN, 0)]
        {
            assert_eq!(round(x), want, "{x}");
        }
    }
}
