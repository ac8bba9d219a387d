//! Arithmetic of polynomials modulo the Castagnoli polynomial, in the register's bit order: bit 31
//! is the coefficient of x^0.

/// The reflected Castagnoli polynomial (RFC 3720, appendix B.4).
pub(crate) const POLYNOMIAL: u32 = 0x82F6_3B78;
/// The polynomial 1.
pub(crate) const ONE: u32 = 0x8000_0000;

/// Times x.
pub(crate) const fn times_x(a: u32) -> u32 {
    (a >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(a & 1))
}

/// Divided by x; possible because the polynomial has the term 1.
#[cfg_attr(any(not(target_arch = "x86_64"), tapeline_portable), allow(dead_code))] // for constants of that path
pub(crate) const fn over_x(a: u32) -> u32 {
    // times_x set bit 31 exactly when it reduced: the polynomial has bit 31 set.
    let reduced = a >> 31;
    ((a ^ (POLYNOMIAL & 0_u32.wrapping_sub(reduced))) << 1) | reduced
}

/// Product.
pub(crate) const fn multiply(a: u32, b: u32) -> u32 {
    let mut sum = 0;
    let mut shifted = b;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        sum ^= shifted & 0_u32.wrapping_sub((a >> bit) & 1);
        shifted = times_x(shifted);
    }
    sum
}

/// x to the power of `n`, for constants.
pub(crate) const fn x_to_the(n: u64) -> u32 {
    let mut power = ONE;
    let mut square = times_x(ONE);
    let mut n = n;
    while n > 0 {
        if n & 1 == 1 {
            power = multiply(power, square);
        }
        square = multiply(square, square);
        n >>= 1;
    }
    power
}

/// x to the power of minus `n`, for small `n`.
#[cfg_attr(any(not(target_arch = "x86_64"), tapeline_portable), allow(dead_code))] // for constants of that path
pub(crate) const fn x_to_the_minus(n: u32) -> u32 {
    let mut power = ONE;
    let mut i = 0;
    while i < n {
        power = over_x(power);
        i += 1;
    }
    power
}

/// `BYTE_POWERS[k][b]`: x^(8 b 256^k), so that a shift by any number of bytes is a product of one
/// entry per byte of that number.
pub(crate) static BYTE_POWERS: [[u32; 256]; 8] = byte_powers(ONE);

/// The same, every entry times `scale`.
pub(crate) const fn byte_powers(scale: u32) -> [[u32; 256]; 8] {
    let mut t = [[scale; 256]; 8];
    let mut base = x_to_the(8);
    let mut k = 0;
    while k < 8 {
        let mut b = 1;
        while b < 256 {
            t[k][b] = multiply(t[k][b - 1], base);
            b += 1;
        }
        // To the power of 256.
        let mut bit = 0;
        while bit < 8 {
            base = multiply(base, base);
            bit += 1;
        }
        k += 1;
    }
    t
}

/// `register` after `bytes` zero bytes, in plain arithmetic.
pub(crate) fn shift(register: u32, bytes: u64) -> u32 {
    BYTE_POWERS
        .iter()
        .zip(bytes.to_le_bytes())
        .fold(register, |register, (table, byte)| {
            if byte == 0 {
                register
            } else {
                multiply(register, table[usize::from(byte)])
            }
        })
}
