//! Helpers for the columns of `tapeline-bcsv`: borrow, sum up.

use tapeline_bcsv::{Column, ColumnView};
use tapeline_sys::vector::{Work, widest};

use crate::infer::{Summary, fits_f32, fits_f64};

/// Borrow a column for writing.
pub(crate) fn view(column: &Column) -> ColumnView<'_> {
    match column {
        Column::Bool(bits) => ColumnView::Bool {
            bits: &bits.bytes,
            offset: 0,
        },
        Column::UInt8(values) => ColumnView::UInt8(values),
        Column::UInt16(values) => ColumnView::UInt16(values),
        Column::UInt32(values) => ColumnView::UInt32(values),
        Column::UInt64(values) => ColumnView::UInt64(values),
        Column::Int8(values) => ColumnView::Int8(values),
        Column::Int16(values) => ColumnView::Int16(values),
        Column::Int32(values) => ColumnView::Int32(values),
        Column::Int64(values) => ColumnView::Int64(values),
        Column::Float(values) => ColumnView::Float(values),
        Column::Double(values) => ColumnView::Double(values),
        Column::String(text) => ColumnView::String {
            offsets: &text.offsets,
            bytes: &text.bytes,
        },
    }
}

/// What the values of a column ask of its type. Only whole numbers can ask for less than their column offers.
pub(crate) fn summary(column: &Column) -> Summary {
    let mut seen = Summary::default();
    macro_rules! ints {
        ($values:expr) => {
            if let Some((min, max)) = widest(Extremes($values)) {
                let small = i128::from(min).abs().max(i128::from(max)) <= 1 << 24;
                let exact = (
                    small || $values.iter().all(|v| fits_f32((*v).into())),
                    small || $values.iter().all(|v| fits_f64((*v).into())),
                );
                let low = i64::try_from(min).unwrap_or(i64::MAX).min(0);
                seen.range(low, u64::try_from(max).unwrap_or(0), exact);
            }
        };
    }
    match column {
        Column::UInt8(values) => ints!(values),
        Column::UInt16(values) => ints!(values),
        Column::UInt32(values) => ints!(values),
        Column::UInt64(values) => ints!(values),
        Column::Int8(values) => ints!(values),
        Column::Int16(values) => ints!(values),
        Column::Int32(values) => ints!(values),
        Column::Int64(values) => ints!(values),
        other if !other.is_empty() => seen.kind(other.kind()),
        _ => {}
    }
    seen
}

/// The least and the greatest number.
struct Extremes<'a, T>(&'a [T]);

impl<T: Copy + Ord> Work for Extremes<'_, T> {
    type Output = Option<(T, T)>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let mut found = (*self.0.first()?, *self.0.first()?);
        for value in self.0 {
            found = (found.0.min(*value), found.1.max(*value));
        }
        Some(found)
    }
}
