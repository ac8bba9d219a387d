//! Numbers against the standard library and against the rule, said another way.
#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

#[test]
fn what_a_double_keeps() {
    for text in [
        "0",
        "-0",
        "0.1",
        "1e22",
        "123456789012345",
        "0.8444218515250481",
        "0.10000000000000001",
        "5e-324",
        ".5",
        "5.",
    ] {
        let value = exact_f64(text.as_bytes()).unwrap();
        assert_eq!(
            value.to_bits(),
            text.parse::<f64>().unwrap().to_bits(),
            "{text}"
        );
    }
    for text in [
        "",
        "-",
        "007",
        "+5",
        "1e400",
        "1_000",
        "1 ",
        " 1",
        "1e",
        "0x10",
        ".",
        "9007199254740993",
        "0.1234567890123456789",
        "3e-324",
        "1.2.3",
    ] {
        assert_eq!(exact_f64(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn what_a_float_keeps() {
    for text in [
        "0.1",
        "3.4028235e38",
        "16777216",
        "0.12345679",
        "1.50000000",
        "0.1000000000",
    ] {
        let value = exact_f32(text.as_bytes()).unwrap();
        assert_eq!(
            value.to_bits(),
            text.parse::<f32>().unwrap().to_bits(),
            "{text}"
        );
    }
    for text in ["16777217", "0.123456789", "1e39", "1e-46", "3.40282357e38x"] {
        assert_eq!(exact_f32(text.as_bytes()), None, "{text}");
    }
}

/// The rule, without any short cut.
fn twin<T: Copy + std::fmt::LowerExp>(text: &str, value: T) -> bool {
    keeps(text.as_bytes(), b'.', |digits| {
        format!("{:.*e}", digits - 1, value)
    })
}

proptest! {
    #[test]
    fn printed_doubles_are_kept(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        for text in [zmij::Buffer::new().format_finite(value).to_owned(), format!("{value:.16e}")] {
            prop_assert_eq!(exact_f64(text.as_bytes()).map(f64::to_bits), Some(bits));
        }
    }

    #[test]
    fn printed_floats_are_kept(bits: u32) {
        let value = f32::from_bits(bits);
        prop_assume!(value.is_finite());
        // Of two shortest texts equally near, only the even one is kept, which is what we print.
        for text in [zmij::Buffer::new().format_finite(value).to_owned(), format!("{value:.8e}")] {
            prop_assert_eq!(exact_f32(text.as_bytes()).map(f32::to_bits), Some(bits));
        }
    }

    #[test]
    fn doubles_of_usual_size(bits: u64, exponent in 1005u64..1090, few in 0u32..52, places in 1usize..20, tail in 0u32..1000) {
        // Few bits lie near powers of two and half way between decimals.
        let bits = bits >> few << few;
        let value = f64::from_bits(bits & !(0x7FF << 52) | exponent << 52);
        for text in [format!("{value:.places$}"), format!("{value:.places$}{tail}"), format!("{value:.15}")] {
            let wide = text.parse::<f64>().unwrap();
            let kept = twin(&text, wide).then_some(wide.to_bits());
            prop_assert_eq!(exact_f64(text.as_bytes()).map(f64::to_bits), kept, "{}", text);
        }
    }

    #[test]
    fn short_cuts_agree_with_the_rule(negative: bool, mantissa in 0u64..1 << 60, digits in 0u32..60, point in 0usize..12, exponent in -50i32..50, plain: bool) {
        let whole = (mantissa >> digits).to_string();
        let at = whole.len().saturating_sub(point).max(1);
        let (a, b) = whole.split_at(at.min(whole.len()));
        let mut text = format!("{}{a}", if negative { "-" } else { "" });
        if !b.is_empty() { text = format!("{text}.{b}"); }
        if !plain { text = format!("{text}e{exponent}"); }
        let (wide, narrow) = (text.parse::<f64>().unwrap(), text.parse::<f32>().unwrap());
        let kept = (wide.is_finite() && twin(&text, wide)).then_some(wide.to_bits());
        prop_assert_eq!(exact_f64(text.as_bytes()).map(f64::to_bits), kept, "{}", text);
        let kept = (narrow.is_finite() && twin(&text, narrow)).then_some(narrow.to_bits());
        prop_assert_eq!(exact_f32(text.as_bytes()).map(f32::to_bits), kept, "{}", text);
    }
}
